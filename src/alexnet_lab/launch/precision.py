"""Chooses the precision of a run when it starts, where it is null: by the device, the same on all ranks."""

import logging
import time
from pathlib import Path
from typing import Any

from alexnet_lab import distributed
from alexnet_lab.config.by_device import FLOAT16_MIXED, RECORDED, Device, check_float64, device_of, resolved
from alexnet_lab.errors import UserError
from alexnet_lab.launch import ownership
from alexnet_lab.runs import folders

LOOK_SECONDS = 0.1

log = logging.getLogger(__name__)


def choose(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The settings of this rank with its precision, which rank 0 records in `config.yaml` and prints.

    Raises:
        UserError: the device cannot compute in the precision, or that of rank 0 has another one.
    """
    device = device_of(settings["trainer"])
    check_float64(settings["trainer"].get("precision"), device.kind, "trainer.precision", "trainer=cpu")
    chosen = resolved(settings, device)
    if chosen == settings:
        return settings
    if distributed.rank() == 0:
        ownership.rewrite(folder, chosen)
        _print(settings["trainer"], chosen["trainer"], device)
    else:
        _compare(chosen["trainer"], [key for key in RECORDED if settings["trainer"].get(key) is None], folder, device)
    return chosen


def _print(given: dict[str, Any], chosen: dict[str, Any], device: Device) -> None:
    if str(given.get("precision")) in FLOAT16_MIXED:
        log.warning("trainer.precision=%s: float16 needs a GPU; using bf16-mixed on the CPU", given["precision"])
    elif device.kind == "cuda":
        new = [f"trainer.{key}={chosen[key]}" for key in RECORDED if given.get(key) is None]
        log.info("%s: the default on %s", " ".join(new), device.name)


def _compare(here: dict[str, Any], keys: list[str], folder: Path, device: Device) -> None:
    """Compare what was chosen with what rank 0 has recorded, or will. If rank 0 fails, all ranks are ended."""
    while None in [(of_rank_0 := folders.read_config(folder)["trainer"]).get(key) for key in keys]:
        time.sleep(LOOK_SECONDS)
    for key in keys:
        if here[key] != of_rank_0[key]:
            raise UserError(
                f"trainer.{key} is {of_rank_0[key]} by default on the machine of rank 0, but {here[key]} on "
                f"{device.name or 'the CPU'} of rank {distributed.rank()}: choose one for all, such as "
                f"trainer.{key}={here[key]}"
            )
