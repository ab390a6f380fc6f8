"""From a checkpoint to the network and the data that its recorded configuration describes.

A checkpoint may come from anybody: reading it runs nothing that it names but our own factories.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.precision import Precision
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor, nn

from alexnet_lab import files
from alexnet_lab.config.agreement import agreeing_layers
from alexnet_lab.config.build import build, check_origin
from alexnet_lab.data.module import ImageDataModule
from alexnet_lab.data.preprocessing import Preprocessing
from alexnet_lab.errors import UserError
from alexnet_lab.runs.checkpoint_file import read_file
from alexnet_lab.runs.left_out import leave_out

PREFIX = "wandb:"
ARTIFACTS = "logs/wandb_artifacts"
"""Downloaded checkpoints, below the project's root."""
LONGEST_REASON = 300


class RecordedTrainer(BaseModel):
    """What is needed of a recorded trainer."""

    precision: str | int | None


class RecordedConfig(BaseModel):
    """What is needed of a recorded configuration."""

    run: str
    channels_last: bool
    model: dict[str, Any]
    data: dict[str, Any]
    trainer: RecordedTrainer


class Content(BaseModel):
    """What is needed of a checkpoint."""

    model_config = ConfigDict(strict=True, arbitrary_types_allowed=True)

    config: RecordedConfig
    state_dict: dict[str, Tensor]
    global_step: int
    preprocessing: dict[str, Any] = {}


@dataclass(frozen=True)
class Restored:
    """What a checkpoint holds: the resolved configuration of its run, and the state of the network."""

    settings: dict[str, Any]
    state: dict[str, Tensor]
    step: int
    """Optimizer steps that were done."""
    preprocessing: Mapping[str, Any]
    """See `ImageDataModule.preprocessing`."""
    left_out: list[str] | None = None
    """The images that the run left out, as they were unreadable; None where it could read all."""


def read_checkpoint(path: Path) -> Restored:
    """Read a checkpoint that a run of ours has written; the weights are mapped from the file, not copied.

    A `path` like `wandb:ENTITY/PROJECT/ARTIFACT:best` is downloaded first, unless it has been before.

    Raises:
        UserError: it is not a checkpoint of ours, see also `read_file`; for W&B see `download`.
    """
    if str(path).startswith(PREFIX):
        path = _downloaded(str(path))
    named = f"checkpoint={path}"
    content = read_file(path, named)
    if not isinstance(content, Mapping) or not {"config", "state_dict", "global_step"} <= content.keys():
        raise UserError(f"{named}: it records no configuration; only checkpoints of AlexNet Lab's runs can be used")
    try:
        Content.model_validate(content)
    except ValidationError as error:
        detail = error.errors()[0]
        key = ".".join(map(str, detail["loc"]))
        raise UserError(f"{named}: not an AlexNet Lab checkpoint; {key}: {detail['msg']}") from error
    settings = content["config"]
    for part, package in (("model", "models"), ("data", "data")):
        check_origin(settings[part], part, package)
    return Restored(
        settings,
        content["state_dict"],
        content["global_step"],
        content.get("preprocessing", {}),
        content.get("left_out"),
    )


def restored_network(restored: Restored, precision: Precision | None = None) -> nn.Module:
    """The network with the checkpoint's weights, in evaluation mode and the run's memory format.

    The weights are float32, or of the dtype in which `precision` computes, whatever they were trained in: lightning
    converts neither to float32 nor for mixed precision.

    Raises:
        UserError: the weights do not fit the network, or the configuration is not of this version.
    """
    settings = dict(restored.settings["model"])
    if "pretrained" in settings:
        settings["pretrained"] = False  # what was loaded then is in the checkpoint now
    with torch.device("meta"):
        net: nn.Module = build(settings, "model", nn.Module)
    if restored.preprocessing:
        facts = Preprocessing.of(restored.preprocessing)
        try:
            agreeing_layers(net, settings, facts.channels, facts.image_size, len(facts.classes))
        except UserError as error:
            raise UserError(f"the checkpoint's network does not fit its preprocessing: {error}") from error
    try:
        net.load_state_dict(restored.state, assign=True)
    except RuntimeError as error:
        reasons = " ".join(str(error).split())[:LONGEST_REASON]
        raise UserError(f"the checkpoint's weights do not fit its network: {reasons}") from error
    example = torch.empty(0)
    net.to((precision.convert_input(example) if precision else example).dtype)
    if restored.settings["channels_last"]:
        net.to(memory_format=torch.channels_last)
    return net.eval()


def restored_data(restored: Restored, changes: Mapping[str, Any]) -> ImageDataModule:
    """The data module of the run, with those `changes` to its settings that are not None.

    Raises:
        UserError: the dataset has no such setting, or refuses its value.
    """
    changed = {key: value for key, value in changes.items() if value is not None}
    data: ImageDataModule = build({**restored.settings["data"], **changed}, "data", ImageDataModule)
    if restored.left_out is not None:
        leave_out(data, restored.left_out)
    return data


def _downloaded(reference: str) -> Path:
    from alexnet_lab.loggers.wandb_artifacts import download  # here, since wandb takes a second to import

    return download(reference, files.ROOT / ARTIFACTS)
