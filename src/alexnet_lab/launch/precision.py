"""Chooses the precision of a run when it starts, where it is null: by the device, the same on all ranks."""

import logging
import time
from pathlib import Path
from typing import Any

from alexnet_lab import distributed
from alexnet_lab.config.by_device import FLOAT16_MIXED, PRECISION, Device, check_float64, device_of, resolved, values
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
    given = values(settings)
    check_float64(given[PRECISION], device.kind, PRECISION, "trainer=cpu")
    chosen = resolved(settings, device)
    if chosen == settings:
        return settings
    new = {key: value for key, value in values(chosen).items() if given[key] is None}
    if distributed.rank() > 0:
        _compare(new, folder, device)
        return chosen
    ownership.rewrite(folder, chosen)
    if str(given[PRECISION]) in FLOAT16_MIXED and device.kind == "cpu":
        log.warning("trainer.precision=%s: float16 needs a GPU; using bf16-mixed on the CPU", given[PRECISION])
    elif device.kind == "cuda":
        log.info("%s: the default on %s", " ".join(f"{key}={value}" for key, value in new.items()), device.name)
    return chosen


def _compare(new: dict[str, Any], folder: Path, device: Device) -> None:
    """Compare what was chosen with what rank 0 has recorded, or will. If rank 0 fails, all ranks are ended."""
    while None in [(of_rank_0 := values(folders.read_config(folder)))[key] for key in new]:
        time.sleep(LOOK_SECONDS)
    for key, value in new.items():
        if value != of_rank_0[key]:
            raise UserError(
                f"{key} is {of_rank_0[key]} by default on the machine of rank 0, but {value} on "
                f"{device.name or 'the CPU'} of rank {distributed.rank()}: choose one for all, such as {key}={value}"
            )
