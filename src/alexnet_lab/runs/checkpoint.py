"""Reads a checkpoint and makes its network and its data.

A checkpoint may come from anybody: reading it runs no code that it names but the project's own factories.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric.plugins.precision import Precision
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor, nn

from alexnet_lab.config.agreement import agreeing_layers
from alexnet_lab.config.build import build, check_origin
from alexnet_lab.data.module import ImageDataModule
from alexnet_lab.data.photographs import Photographs
from alexnet_lab.data.preprocessing import Preprocessing
from alexnet_lab.errors import UserError, printable
from alexnet_lab.published.as_checkpoint import DERIVED
from alexnet_lab.runs import references
from alexnet_lab.runs.former_networks import with_current_keys
from alexnet_lab.runs.left_out import leave_out

Modules = str | list[str]
"""Modules of the user, besides this package, from which a checkpoint's network and dataset may come."""
LONGEST_REASON = 300


class RecordedTrainer(BaseModel):
    """The part of a recorded trainer that is used."""

    precision: str | int | None


class RecordedConfig(BaseModel):
    """The part of a recorded configuration that is used."""

    run: str
    channels_last: bool
    model: dict[str, Any]
    data: dict[str, Any]
    trainer: RecordedTrainer
    matmul_precision: Literal["highest", "high", "medium", "torch"] | None = None


class Content(BaseModel):
    """The part of a checkpoint that is used."""

    model_config = ConfigDict(strict=True, arbitrary_types_allowed=True)

    config: RecordedConfig
    state_dict: dict[str, Tensor]
    global_step: int
    preprocessing: dict[str, Any] = {}


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint: the run's resolved configuration and the network's weights."""

    settings: dict[str, Any]
    weights: dict[str, Tensor]
    step: int
    """Optimizer steps done."""
    preprocessing: Preprocessing | None = None
    """None in checkpoints from before it was recorded."""
    left_out: list[str] | None = None
    """The unreadable images that the run left out; None if it could read all."""
    file: Path | None = None
    """The file that holds the weights; None if they were downloaded by name."""
    derived_data: bool = False
    """Whether the settings of the data were derived from the preprocessing, because no run recorded them."""

    @property
    def origin(self) -> str:
        """For the reader: `run NAME`, or the name of the file or of the weights, if no run recorded them."""
        return str(self.settings["run"]) if self.derived_data else f"run {self.settings['run']}"

    def network(self, precision: Precision | None = None) -> nn.Module:
        """The network with these weights, in evaluation mode and the run's memory format.

        The weights are float32, or of the dtype in which `precision` computes, whatever they were trained in: lightning
        converts neither to float32 nor for mixed precision.

        Raises:
            UserError: the weights do not fit the network, or the configuration is not of this version.
        """
        settings = dict(self.settings["model"])
        if "pretrained" in settings:
            settings["pretrained"] = False  # the weights that it loads are in the checkpoint
        with torch.device("meta"):
            net: nn.Module = build(settings, "model", nn.Module)
        if facts := self.preprocessing:
            try:
                agreeing_layers(net, settings, facts.channels, facts.image_size, len(facts.classes))
            except UserError as error:
                raise UserError(f"the checkpoint's network does not fit its preprocessing: {error}") from error
        try:
            net.load_state_dict(self.weights, assign=True)
        except RuntimeError as error:
            reasons = " ".join(str(error).split())[:LONGEST_REASON]
            raise UserError(f"the checkpoint's weights do not fit its network: {reasons}") from error
        example = torch.empty(0)
        net.to((precision.convert_input(example) if precision else example).dtype)
        if self.settings["channels_last"]:
            net.to(memory_format=torch.channels_last)
        return net.eval()

    def data(self, changes: Mapping[str, Any]) -> ImageDataModule:
        """The run's data module, with those `changes` to its settings that are not None.

        Photographs in another `dir` may be of a part of the network's classes; their labels are the network's.

        Raises:
            UserError: the dataset has no such setting, or refuses its value; or the dataset is unknown.
        """
        if "_target_" not in self.settings["data"]:
            raise UserError("the file does not record its dataset; evaluate the checkpoint of the run instead")
        if self.derived_data and changes.get("dir") is None and not Path(self.settings["data"]["dir"]).exists():
            raise UserError("name the images: data.dir=FOLDER, with a folder for each class, or a store")
        changed = {key: value for key, value in changes.items() if value is not None}
        data: ImageDataModule = build({**self.settings["data"], **changed}, "data", ImageDataModule)
        if ("dir" in changed or self.derived_data) and self.preprocessing and isinstance(data.dataset, Photographs):
            data.dataset.images.label_as(self.preprocessing.classes)
        if self.left_out is not None:
            leave_out(data, self.left_out)
        if self.derived_data:
            data.pipeline = self.needed_preprocessing().pipeline  # has the mean image, which settings cannot describe
        return data

    def needed_preprocessing(self) -> Preprocessing:
        """The preprocessing; raises UserError if the checkpoint is from before it was recorded."""
        return self.preprocessing or Preprocessing.of({})


def read_checkpoint(reference: str | Path, modules: Modules | tuple[()] = (), option: str = "checkpoint") -> Checkpoint:
    """Read the network that `OPTION=REFERENCE` names, see docs/checkpoints.md; `modules`: see `Modules`.

    `option` is '' where the reference is no option of a command: messages then begin with the reference.

    The weights of a run are mapped from its file, not copied.

    Raises:
        UserError: see `references.find`; or the content is not that of a network that this version can use.
    """
    named = references.named(option, reference)
    content, file = references.find(str(reference), option)
    try:
        Content.model_validate(content)
    except ValidationError as error:
        detail = error.errors()[0]
        key = ".".join(map(str, detail["loc"]))
        raise UserError(f"{named}: not an AlexNet Lab checkpoint; {key}: {detail['msg']}") from error
    settings, recorded = content["config"], content.get("preprocessing")
    settings = {
        **with_current_keys(settings),
        "run": printable(settings["run"]),
        "data": _with_printable_name(settings["data"]),
    }
    for part, package, kind in (("model", "models", nn.Module), ("data", "data", ImageDataModule)):
        check_origin(settings[part], part, package, kind, [modules] if isinstance(modules, str) else modules)
    return Checkpoint(
        settings,
        content["state_dict"],
        content["global_step"],
        Preprocessing.of(recorded) if recorded else None,
        content.get("left_out"),
        file,
        DERIVED in content,
    )


def _with_printable_name(data: dict[str, Any]) -> dict[str, Any]:
    """The name is shown on the terminal, and the file may come from anybody."""
    return {**data, "name": printable(str(data["name"]))} if "name" in data else data
