"""Describes a run before it starts: its layers, learning rates, images or cost."""

from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from alexnet_lab.config.output_file import check_output
from alexnet_lab.config.values import check_values
from alexnet_lab.errors import UserError

PARTS = {
    "layers": (".md", ".csv", ".json", ".svg"),
    "schedule": (".png", ".csv", ".md"),
    "data": (".png",),
    "cost": (".json",),
}
"""By `what`, the suffixes of the files that `out` can name. The function of this name in `alexnet_lab.description`, in
the module of this name, gets the settings and the files.
"""

What = Literal["layers", "schedule", "data", "cost"]
KINDS = {"what": What, "out": str | list[str] | None}
"""The types of the options that are not settings of a run."""


def describe(config: DictConfig, *others: DictConfig) -> None:
    """Print what `config.what` names, and write it to the files of `config.out`; `others` only where what=layers.

    Raises:
        UserError: a wrong key or value, or a file cannot be written.
    """
    settings, *rest = (_container(one) for one in (config, *others))
    check_values({key: settings[key] for key in KINDS}, KINDS)
    what, out = settings.pop("what"), settings.pop("out")
    if rest and what != "layers":
        raise UserError(f"what={what} describes one run: give one value of each option; what=layers takes several")
    if settings.get("tune"):
        raise UserError("tune belongs to train, in place of a training: omit it here")
    outputs = [] if out is None else out if isinstance(out, list) else [out]
    for output in outputs:
        check_output("out", output, PARTS[what], makes_folder=True)
    part = getattr(import_module(f"alexnet_lab.description.{what}"), what)
    part(settings, [Path(output) for output in outputs], *([rest] if rest else []))


def _container(config: DictConfig) -> dict[str, Any]:
    if HydraConfig.initialized():
        config.overrides = list(HydraConfig.get().overrides.task)
    config.folder = r"\${folder}"  # no run has a folder yet: its place, as config.yaml has it
    return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[return-value]
