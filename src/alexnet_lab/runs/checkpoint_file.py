"""Reads the file of a checkpoint without running anything that it names, or describes it in one line."""

import argparse
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from alexnet_lab.errors import UserError, printable
from alexnet_lab.runs import safetensors_file

ZIP = b"PK\x03\x04"
OLD_TORCH = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""The start of a file of torch.save before version 1.6, or with its old format."""
TENSORS = "data.pkl"
"""The file in a zip archive of PyTorch that describes the tensors."""
SCRIPT = "constants.pkl"
HARMLESS = (argparse.Namespace,)
"""Python objects that a file may hold: torchvision's training script saves its options."""
HEAD_BYTES = 512
SHOWN_NAMES = 3
SAFETENSORS = rb".{3}[\x00-\x7f]\x00{4}\{"
"""The first bytes of such a file: the length of the JSON that follows."""
KINDS = {
    rb"\s*<(!doctype|html|\?xml)": "a web page: download the file itself, not the page about it",
    rb"version https://git-lfs": "a pointer of Git LFS: fetch the file itself with `git lfs pull`",
    rb"\x89HDF": "an HDF5 file, as Keras writes them",
    rb"\x93NUMPY": "a NumPy array",
    rb"\x1f\x8b": "a gzip file",
    rb"\x80[\x02-\x05]": "a pickle file, which could run any program, and is not loaded",
    rb".{257}ustar": "a tar archive",
    SAFETENSORS: "a safetensors file",
    rb"\s*(#[^\n]*\s+)*(name|input|layers?)\s*[:{]": "the text description of a network (.prototxt), without weights",
    rb"([\t-\r -~]|[\xc2-\xf4][\x80-\xbf]{1,3})+[\xc2-\xf4]?\Z": "text",
}
"""The kind of a file by its first bytes."""


def read_file(path: Path, named: str) -> Any:
    """The content of a checkpoint, its tensors mapped from the file and not copied; each message begins with `named`.

    Raises:
        UserError: the file does not exist, cannot be read, is damaged or truncated, or is of another kind; or its
            tensors are larger than the file, see `_check_tensors`.
    """
    try:
        _check_file(path, named)
        if _is_safetensors(path):
            return safetensors_file.read(path, named)
    except OSError as error:
        raise UserError(f"{named}: {error.strerror or error}") from error
    with safe_globals([*HARMLESS]):
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        except Exception as error:  # any exception, as the file may hold anything
            # PyTorch's own message explains how to load the file anyway.
            raise UserError(f"{named}: not a file of weights that can be used; {_unsafe(path)}") from error
    _check_tensors(content, named)
    return content


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
        raise UserError(f"{named}: {what}, such as logs/train/runs/NAME/checkpoints/best.ckpt")
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if not head:
        raise UserError(f"{named}: the file is empty")
    if head.startswith(OLD_TORCH) or re.match(SAFETENSORS, head, re.DOTALL):
        return
    if not head.startswith(ZIP):
        raise UserError(f"{named}: not a file of weights{_but(head)}")
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
        raise UserError(f"{named}: not a file of weights that can be used, but {what}")


def _check_tensors(content: Any, named: str) -> None:
    """Check the tensors of `content` and of the dictionaries in it: the file must hold all of their numbers.

    Otherwise a small file could describe a network that does not fit into memory, for example with strides of 0.
    """
    parts = [content, *content.values()] if isinstance(content, Mapping) else []
    for part in (part for part in parts if isinstance(part, Mapping)):
        for name, value in part.items():
            if isinstance(value, Tensor) and not _is_complete(value):
                raise UserError(
                    f"{named}: the file does not hold all numbers of {printable(str(name))} {[*value.shape]}"
                )


def _is_complete(tensor: Tensor) -> bool:
    if tensor.layout is not torch.strided or tensor.is_meta:
        return False
    return tensor.untyped_storage().nbytes() >= tensor.numel() * tensor.element_size()


def check_caffe_file(path: Path, named: str) -> None:
    """Raises UserError if the file is empty, or of a known kind that is not a file of Caffe's weights."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if not head:
        raise UserError(f"{named}: the file is empty")
    other = ", but a file of PyTorch" if head.startswith((ZIP, OLD_TORCH)) else _but(head)
    if other:
        raise UserError(f"{named}: not a file of Caffe's weights (.caffemodel){other}")


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        return re.match(SAFETENSORS, file.read(HEAD_BYTES), re.DOTALL) is not None


def _but(head: bytes) -> str:
    kinds = (kind for begins, kind in KINDS.items() if re.match(begins, head, re.DOTALL | re.IGNORECASE))
    return next((f", but {kind}" for kind in kinds), "")


def _unsafe(path: Path) -> str:
    try:
        names = sorted(get_unsafe_globals_in_checkpoint(path))
    except Exception:
        names = []
    if not names:
        return "its content cannot be read: it is damaged or truncated, or holds more than tensors"
    more = ", ..." if len(names) > SHOWN_NAMES else ""
    remedy = "; save its state_dict() instead" if any(name.startswith("torch.nn.") for name in names) else ""
    return f"it holds Python objects ({', '.join(names[:SHOWN_NAMES])}{more}), which could run any program{remedy}"
