"""The files of a store, and the contents of `meta.json`.

    data/NAME/
      meta.json                 classes, counts, statistics, checksums: `StoreMeta`
      mean_image.npy            float32 [256, 256, 3], grey levels 0 to 255, of the training images
      train/images.npy          uint8 [N, 256, 256, 3]; in the format `jpeg` instead:
      train/images.bin          N JPEG files one after the other, and
      train/offsets.npy         int64 [N + 1], image i is images.bin[offsets[i]:offsets[i + 1]]
      train/labels.npy          int64 [N], places in the list of classes
      val/... test/...          the same, for the splits that the source has

Images are sorted by class and file name. Nothing depends on the source's layout, on the number of workers or on
interruptions. While it is made, a store is called `data/NAME.partial`; under its own name it is whole.
"""

import hashlib
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from alexnet_lab import files
from alexnet_lab.data.sources.split_names import SPLITS
from alexnet_lab.data.store.images import SIZE
from alexnet_lab.data.store.modes import Transparency
from alexnet_lab.errors import UserError

VERSION = 1
TRANSPARENCY: Transparency = "white"
"""The setting of new stores."""
META = "meta.json"
MEAN_IMAGE = "mean_image.npy"
LABELS = "labels.npy"
PIXELS = "images.npy"
JPEGS = "images.bin"
OFFSETS = "offsets.npy"

IMAGE_SHAPE = (SIZE, SIZE, 3)
IMAGE_BYTES = SIZE * SIZE * 3
NPY_HEADER_BYTES = 128

Format = Literal["uint8", "jpeg"]

Channels = Annotated[list[float], Field(min_length=3, max_length=3)]
"""R G B, or the three principal components."""
Matrix = Annotated[list[Channels], Field(min_length=3, max_length=3)]


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StoreClass(Record):
    wnid: str
    """The name of the class's folder in the source."""
    name: str


class Skipped(Record):
    file: str
    """`split/class/name`"""
    reason: str


class Checksums(Record):
    """SHA-256 of each block of a file; the last block is shorter."""

    bytes: int
    blocks: list[str]


class StoreMeta(Record):
    """The contents of `meta.json`; `Colour` explains the statistics."""

    version: int
    name: str
    format: Format
    classes: list[StoreClass]
    counts: dict[str, PositiveInt]
    """Images by split."""
    mean: Channels
    std: Channels
    covariance: Matrix
    eigenvalues: Channels
    eigenvectors: Matrix
    skipped: list[Skipped]
    transparency: Transparency | None = None
    """The background of transparent pixels; None in older stores, see `to_square`."""
    source_sha256: str
    """`Samples.digest` of the source."""
    software: dict[str, str]
    """Versions of the libraries that determine the pixels."""
    checksum_block_bytes: int
    checksums: dict[str, Checksums]
    """Checksums by path in the store, of all files except `meta.json`."""
    meta_sha256: str = ""
    """SHA-256 of all other entries."""

    @model_validator(mode="after")
    def _is_of_its_own_files(self) -> Self:
        files = {MEAN_IMAGE, *(name for split in self.counts for name in split_files(split, self.format))}
        if not set(self.counts) <= set(SPLITS) or set(self.checksums) != files:
            odd = sorted({*self.counts} - {*SPLITS}) or sorted({*self.checksums} ^ files)
            raise ValueError(f"counts or checksums do not fit a store: {', '.join(odd[:9])}")
        return self

    def digest(self) -> str:
        """The expected `meta_sha256`; entries that are None are left out, as in older stores."""
        text = self.model_copy(update={"meta_sha256": ""}).model_dump_json(exclude_none=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def identity(self) -> str:
        """The identity of the images, see `Contents`. The store keeps no names, so it is the same for every split."""
        left_out = "\n".join(sorted(skipped.file for skipped in self.skipped))
        text = f"{self.source_sha256}\n{left_out}".encode(errors="surrogateescape")
        return f"source:{hashlib.sha256(text).hexdigest()}"


def split_files(split: str, form: Format) -> list[str]:
    """The paths of a split's files in the store."""
    images = [PIXELS] if form == "uint8" else [JPEGS, OFFSETS]
    return [f"{split}/{name}" for name in (*images, LABELS)]


def npy_header(dtype: str, shape: Sequence[int]) -> bytes:
    """The header of a .npy file, always `NPY_HEADER_BYTES` long; `dtype` is for example `|u1` or `<i8`."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": dtype, "fortran_order": False, "shape": tuple(shape)})
    assert header.tell() == NPY_HEADER_BYTES
    return header.getvalue()


def write_meta(folder: Path, meta: StoreMeta) -> StoreMeta:
    """Writes `meta.json` atomically, with its own digest; returns the written metadata."""
    meta = meta.model_copy(update={"meta_sha256": meta.digest()})
    files.write(folder / META, (meta.model_dump_json(indent=1, exclude_none=True) + "\n").encode())
    return meta


def folder_to_make(target: Path, option: str) -> Path:
    """`target` with links resolved: the folder is created next to it and renamed, which requires the same disk.

    Raises:
        UserError: `target` is a mount point, so no folder can be renamed to it.
    """
    folder = target.resolve() if target.is_symlink() or not target.name else target
    if os.path.ismount(folder):
        raise UserError(
            f"{option}={target} is the mount point of a disk; choose a folder in it: {option}={folder / 'NAME'}"
        )
    return folder
