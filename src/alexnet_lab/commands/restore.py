"""From a checkpoint to the network and the data that its recorded configuration describes.

A checkpoint may come from anybody: reading it runs nothing that it names but our own factories.
"""

import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from alexnet_lab.commands import folders
from alexnet_lab.commands.build import build, check_origin
from alexnet_lab.data.module import ImageDataModule
from alexnet_lab.errors import UserError

PREFIX = "wandb:"
ARTIFACTS = "logs/wandb_artifacts"
"""Downloaded checkpoints, below the project's root."""


@dataclass(frozen=True)
class Restored:
    """What a checkpoint holds: the resolved configuration of its run, and the state of the network."""

    settings: dict[str, Any]
    state: dict[str, Tensor]
    step: int
    """Optimizer steps that were done."""
    preprocessing: Mapping[str, Any]
    """See `ImageDataModule.preprocessing`."""


def read_checkpoint(path: Path) -> Restored:
    """Read a checkpoint that a run of ours has written; the weights are mapped from the file, not copied.

    A `path` like `wandb:ENTITY/PROJECT/ARTIFACT:best` is downloaded first, unless it has been before.

    Raises:
        UserError: there is no such file, it is truncated, or it is something else; for W&B see `download`.
    """
    if str(path).startswith(PREFIX):
        path = _downloaded(str(path))
    content = _load(path)
    if not isinstance(content, Mapping) or not {"config", "state_dict", "global_step"} <= content.keys():
        raise UserError(f"checkpoint={path}: it records no configuration; only checkpoints of our runs can be used")
    settings = content["config"]
    for part, package in (("model", "models"), ("data", "data")):
        if not isinstance(settings, Mapping) or not isinstance(settings.get(part), Mapping):
            raise UserError(f"checkpoint={path}: its configuration has no {part}")
        check_origin(settings[part], part, package)
    return Restored(settings, content["state_dict"], content["global_step"], content.get("preprocessing", {}))


def restored_network(restored: Restored) -> nn.Module:
    """The network with the checkpoint's weights, in evaluation mode and the run's memory format.

    Raises:
        UserError: the weights do not fit the network, or the configuration is not of this version.
    """
    settings = dict(restored.settings["model"])
    if "pretrained" in settings:
        settings["pretrained"] = False  # what was loaded then is in the checkpoint now
    with torch.device("meta"):
        net: nn.Module = build(settings, "model")
    try:
        net.load_state_dict(restored.state, assign=True)
    except RuntimeError as error:
        raise UserError(f"the weights do not fit the recorded network: {error}") from error
    if restored.settings["channels_last"]:
        net.to(memory_format=torch.channels_last)
    return net.eval()


def restored_data(restored: Restored, changes: Mapping[str, Any]) -> ImageDataModule:
    """The data module of the run, with those `changes` to its settings that are not None.

    Raises:
        UserError: the dataset has no such setting, or refuses its value.
    """
    changed = {key: value for key, value in changes.items() if value is not None}
    data: ImageDataModule = build({**restored.settings["data"], **changed}, "data")
    return data


def _downloaded(reference: str) -> Path:
    from alexnet_lab.tracking.wandb_artifacts import download  # here, since wandb takes a second to import

    return download(reference, folders.ROOT / ARTIFACTS)


def _load(path: Path) -> Any:
    if not path.is_file():
        what = "that is a folder; name the file in it" if path.is_dir() else "there is no such file"
        raise UserError(f"checkpoint={path}: {what}, like logs/train/runs/NAME/checkpoints/best.ckpt")
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            raise UserError(f"checkpoint={path}: that is no checkpoint")
    if not zipfile.is_zipfile(path):
        raise UserError(f"checkpoint={path}: the file is truncated")
    with zipfile.ZipFile(path) as archive:
        if damaged := archive.testzip():
            raise UserError(f"checkpoint={path}: the file is damaged, in {damaged}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, pickle.UnpicklingError) as error:
        raise UserError(f"checkpoint={path}: that is no checkpoint of ours ({str(error).splitlines()[0]})") from error
