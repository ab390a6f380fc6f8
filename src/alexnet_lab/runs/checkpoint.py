"""Reads a checkpoint and makes its network and its data.

A checkpoint may come from anybody: reading it runs no code that it names but the project's own factories.
"""

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric.plugins.precision import Precision
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor, nn
from torch.serialization import get_unsafe_globals_in_checkpoint

from alexnet_lab import places
from alexnet_lab.config.agreement import agreeing_layers
from alexnet_lab.config.build import build, check_origin
from alexnet_lab.data.module import ImageDataModule
from alexnet_lab.data.preprocessing import Preprocessing
from alexnet_lab.errors import UserError
from alexnet_lab.runs.left_out import leave_out

Modules = str | list[str]
"""Modules of the user, besides this package, from which a checkpoint's network and dataset may come."""
WANDB = "wandb:"
ARTIFACTS = "logs/wandb_artifacts"
"""Downloaded checkpoints, below the home."""
LONGEST_REASON = 300
ZIP = b"PK\x03\x04"
TENSORS = "data.pkl"
"""The file in a zip archive of PyTorch that describes the tensors."""
SCRIPT = "constants.pkl"
HEAD_BYTES = 512
SHOWN_NAMES = 3
KINDS = {
    rb"\s*<(!doctype|html|\?xml)": "a web page: download the file itself, not the page about it",
    rb"version https://git-lfs": "a pointer of Git LFS: fetch the file itself with `git lfs pull`",
    rb"\x89HDF": "an HDF5 file, as Keras writes them",
    rb"\x93NUMPY": "a NumPy array",
    rb"\x1f\x8b": "a gzip file",
    rb"\x80[\x02-\x05]": "a pickle file, which could run any program, and is not loaded",
    rb".{257}ustar": "a tar archive",
    rb".{3}[\x00-\x7f]\x00{4}\{": "a safetensors file, which records no configuration",
}
"""The kind of a file by its first bytes."""


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

        Raises:
            UserError: the dataset has no such setting, or refuses its value.
        """
        changed = {key: value for key, value in changes.items() if value is not None}
        data: ImageDataModule = build({**self.settings["data"], **changed}, "data", ImageDataModule)
        if self.left_out is not None:
            leave_out(data, self.left_out)
        return data

    def needed_preprocessing(self) -> Preprocessing:
        """The preprocessing; raises UserError if the checkpoint is from before it was recorded."""
        return self.preprocessing or Preprocessing.of({})


def read_checkpoint(path: Path, modules: Modules | tuple[()] = ()) -> Checkpoint:
    """Read a checkpoint that a run has written; the weights are mapped from the file, not copied.

    A `path` like `wandb:ENTITY/PROJECT/ARTIFACT:best` is downloaded first, unless that was done before. `modules`: see
    `Modules`.

    Raises:
        UserError: not an AlexNet Lab checkpoint, see also `read_file`; for W&B see `download`.
    """
    if str(path).startswith(WANDB):
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
    settings, recorded = content["config"], content.get("preprocessing")
    for part, package, kind in (("model", "models", nn.Module), ("data", "data", ImageDataModule)):
        check_origin(settings[part], part, package, kind, [modules] if isinstance(modules, str) else modules)
    preprocessing = Preprocessing.of(recorded) if recorded else None
    return Checkpoint(settings, content["state_dict"], content["global_step"], preprocessing, content.get("left_out"))


def _downloaded(reference: str) -> Path:
    from alexnet_lab.loggers.wandb_artifacts import download  # here, since wandb takes a second to import

    return download(reference, places.home() / ARTIFACTS)


def read_file(path: Path, named: str) -> Any:
    """The content of a checkpoint, its tensors mapped from the file and not copied; each message begins with `named`.

    Raises:
        UserError: the file does not exist, cannot be read, is damaged or truncated, or is of another kind.
    """
    try:
        _check_file(path, named)
    except OSError as error:
        raise UserError(f"{named}: {error.strerror or error}") from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # any exception, as the file may hold anything
        # PyTorch's own message explains how to load the file anyway.
        raise UserError(f"{named}: not an AlexNet Lab checkpoint; {_unsafe(path)}") from error


def steps_done(path: Path, trainer: Mapping[str, Any]) -> int:
    """The optimizer steps done at a checkpoint from which a run with these `trainer` settings can continue.

    Raises:
        UserError: as `read_file`; or the checkpoint holds no optimizer state, or is beyond the trainer's end.
    """
    content = read_file(path, str(path))
    known = content if isinstance(content, Mapping) else {}
    step, epoch, complete = known.get("global_step"), known.get("epoch"), "optimizer_states" in known
    if not isinstance(step, int) or not isinstance(epoch, int):
        raise UserError(f"{path}: not an AlexNet Lab checkpoint; it does not record how far its run was")
    if not complete:
        raise UserError(f"{path} holds weights only; a run is continued from checkpoints/last.ckpt")
    for name, done in (("max_epochs", epoch + 1), ("max_steps", step)):
        limit = trainer.get(name)
        if limit is not None and 0 <= limit < done:
            raise UserError(f"the run is in epoch {epoch + 1}, at step {step}: it cannot end at trainer.{name}={limit}")
    return step


def _check_file(path: Path, named: str) -> None:
    if not path.is_file():
        what = "that is a folder; name the file in it" if path.is_dir() else "there is no such file"
        raise UserError(f"{named}: {what}, like logs/train/runs/NAME/checkpoints/best.ckpt")
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if not head:
        raise UserError(f"{named}: the file is empty")
    if not head.startswith(ZIP):
        raise UserError(f"{named}: not an AlexNet Lab checkpoint{_kind(head)}")
    if not zipfile.is_zipfile(path):
        raise UserError(f"{named}: the file is truncated")
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.rpartition("/")[2] for name in archive.namelist()}
            damaged = archive.testzip() if TENSORS in names else None
    except (zipfile.BadZipFile, RuntimeError) as error:  # also an encrypted archive
        raise UserError(f"{named}: the file is damaged: {error}") from error
    if damaged:
        raise UserError(f"{named}: the file is damaged, in {damaged}")
    if TENSORS not in names or SCRIPT in names:
        what = "a TorchScript archive" if SCRIPT in names else "a zip archive of something else"
        raise UserError(f"{named}: not an AlexNet Lab checkpoint, but {what}")


def _kind(head: bytes) -> str:
    kinds = (kind for begins, kind in KINDS.items() if re.match(begins, head, re.DOTALL | re.IGNORECASE))
    return next((f", but {kind}" for kind in kinds), "")


def _unsafe(path: Path) -> str:
    try:
        names = sorted(get_unsafe_globals_in_checkpoint(path))
    except Exception:
        names = []
    if not names:
        return "its content cannot be read"
    more = ", ..." if len(names) > SHOWN_NAMES else ""
    return f"it holds Python objects ({', '.join(names[:SHOWN_NAMES])}{more}), which could run any program"
