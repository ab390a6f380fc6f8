"""A store as arrays. Opening it checks file sizes but reads no image: milliseconds for 252 GB."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from alexnet_lab.command_line import command, override
from alexnet_lab.data.store.format import (
    IMAGE_BYTES,
    IMAGE_SHAPE,
    JPEGS,
    LABELS,
    MEAN_IMAGE,
    META,
    NPY_HEADER_BYTES,
    OFFSETS,
    PIXELS,
    VERSION,
    StoreMeta,
)
from alexnet_lab.errors import UserError


@dataclass(frozen=True)
class Jpegs:
    """The images of a split, as JPEG files."""

    data: NDArray[np.uint8]
    """[bytes], all JPEG files concatenated, memory-mapped"""
    offsets: NDArray[np.int64]
    """[N + 1]"""
    path: Path
    check: str
    """A command line that finds all damaged images of the store."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> NDArray[np.uint8]:
        """[bytes] of one image as a JPEG file, not copied."""
        return self.data[self.offsets[row] : self.offsets[row + 1]]


@dataclass(frozen=True)
class Store:
    """A store whose file sizes and labels match `meta`; all arrays are read-only."""

    folder: Path
    meta: StoreMeta

    def images(self, split: str) -> NDArray[np.uint8]:
        """[N, 256, 256, 3] of a store of the format `uint8`, memory-mapped."""
        assert self.meta.format == "uint8"
        return self._load(f"{split}/{PIXELS}", "r", np.uint8, (self.meta.counts[split], *IMAGE_SHAPE))

    def jpegs(self, split: str) -> Jpegs:
        """The images of a store of the format `jpeg`."""
        assert self.meta.format == "jpeg"
        offsets = self._load(f"{split}/{OFFSETS}", None, np.int64, (self.meta.counts[split] + 1,))
        # As a plain array: slicing takes a tenth of the time.
        data = np.asarray(np.memmap(self.folder / split / JPEGS, np.uint8, "r"))
        if offsets[0] != 0 or offsets[-1] != len(data) or (np.diff(offsets) <= 0).any():
            raise UserError(f"{self.folder / split / OFFSETS} is damaged: its offsets do not increase to {len(data)}")
        check = _command(self.folder, self.meta.name, "verify=true")
        return Jpegs(data, offsets, self.folder / split / JPEGS, check)

    def labels(self, split: str) -> NDArray[np.int64]:
        """[N], indices into `meta.classes`."""
        path = self.folder / split / LABELS
        labels = self._load(f"{split}/{LABELS}", None, np.int64, (self.meta.counts[split],))
        for label in (labels.min(initial=0), labels.max(initial=0)):
            if not 0 <= label < len(self.meta.classes):
                raise UserError(f"{path} is damaged: label {label} is not in [0, {len(self.meta.classes)})")
        return labels

    def mean_image(self) -> NDArray[np.float32]:
        """[256, 256, 3], grey levels 0 to 255: the mean of the training images."""
        return self._load(MEAN_IMAGE, None, np.float32, IMAGE_SHAPE)

    def _load(self, name: str, mode: Any, dtype: type, shape: tuple[int, ...]) -> NDArray[Any]:
        path = self.folder / name
        try:
            array = np.load(path, mmap_mode=mode, allow_pickle=False)
        except Exception as error:  # NumPy raises almost any exception for a damaged header
            raise UserError(f"{path} is damaged: {error}") from None
        if (array.dtype, array.shape) != (np.dtype(dtype), shape):
            raise UserError(f"{path} is damaged: it contains {array.dtype} {list(array.shape)}, not {list(shape)}")
        array.flags.writeable = False
        return array


def open_store(folder: Path, name: str | None = None) -> Store:
    """The store in `folder`; `name` is the expected dataset.

    Raises:
        UserError: there is no store, it has another version or dataset, a file is missing or has the wrong size, or a
            label is out of range.
    """
    store = Store(folder, _read_meta(folder, name))
    _check_sizes(store)
    for split in store.meta.counts:
        store.labels(split)
    return store


def _read_meta(folder: Path, name: str | None) -> StoreMeta:
    path = folder / META
    remedy = _command(folder, name or folder.name)
    try:
        text = path.read_text()
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{_missing(folder)}\nto make a store in it: {remedy}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    try:
        version = json.loads(text)["version"]
        if version != VERSION:
            raise UserError(
                f"{folder} is a store of version {version}, but this program reads {VERSION}; make it again: {remedy}"
            )
        meta = StoreMeta.model_validate_json(text)
    except (json.JSONDecodeError, KeyError, TypeError, RecursionError, ValidationError) as error:
        reason = str(error).replace("\n", " ")
        raise UserError(f"{path} is damaged ({reason}); delete {folder} and make it again: {remedy}") from None
    if meta.meta_sha256 and meta.digest() != meta.meta_sha256:
        raise UserError(f"{path} is damaged: its checksum differs; delete {folder} and make it again: {remedy}")
    if name is not None and meta.name != name:
        raise UserError(f"{folder} (data.dir) contains the store of {meta.name}, not of {name}")
    return meta


def _missing(folder: Path) -> str:
    """A description of what the folder contains instead of a store."""
    place = f"{folder.absolute()} (data.dir)"
    if Path(f"{folder.resolve()}.partial").exists():
        return f"there is no store in {place}; {folder}.partial is unfinished; repeat the command that started it"
    if not folder.is_dir():
        return f"there is no folder {place}; data.dir=FOLDER names one of images, sorted by class"
    if (folder / MEAN_IMAGE).exists():
        return f"the store in {place} has no {META}; delete it and make it again"
    if not any(folder.iterdir()):
        return f"the folder {place} is empty"
    return f"there is no store in {place}; training needs a store, or images in train/<class>/* or <class>/*"


def _command(folder: Path, name: str, choice: str = "source=FOLDER_OR_ARCHIVE") -> str:
    """A command line of `prepare`, by default to make the store; the dataset's usual folder is left out."""
    elsewhere = [] if folder.absolute() == Path("data", name).absolute() else [override("data.dir", folder)]
    return command("prepare", override("data", name), choice, *elsewhere)


def _check_sizes(store: Store) -> None:
    for name, checksums in store.meta.checksums.items():
        path = store.folder / name
        try:
            size = path.stat().st_size
        except OSError as error:
            raise UserError(
                f"{path} is missing ({error.strerror}); delete {store.folder} and prepare it again"
            ) from None
        if size != checksums.bytes:
            raise UserError(
                f"{path} has {size:,} bytes instead of the {checksums.bytes:,} that were written; "
                f"delete {store.folder} and prepare it again"
            )
    if store.meta.format == "uint8":
        for split, count in store.meta.counts.items():
            listed = store.meta.checksums.get(f"{split}/{PIXELS}")
            if listed is None or listed.bytes != NPY_HEADER_BYTES + count * IMAGE_BYTES:
                raise UserError(f"{store.folder / META} is damaged: {split}/{PIXELS} cannot hold {count:,} images")
