"""ImageNet and its like: RGB images of 256 x 256, from a store, or from image files that are made so when read."""

import logging
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from alexnet_lab.command_line import command, override
from alexnet_lab.data.dataset import Split, SplitName, held_out_rows
from alexnet_lab.data.encoded import ImageFiles, StoredJpegs
from alexnet_lab.data.gather import PixelFile, WindowedImages
from alexnet_lab.data.image_kinds import left_out_line
from alexnet_lab.data.imagenet_classes import names_by_wnid
from alexnet_lab.data.sources.listing import is_archive
from alexnet_lab.data.sources.samples import NoTrainingImages, find_samples
from alexnet_lab.data.store.format import MEAN_IMAGE, META, NPY_HEADER_BYTES, PIXELS, StoreMeta
from alexnet_lab.data.store.modes import Transparency
from alexnet_lab.data.store.reading import open_store
from alexnet_lab.data.stream.layout import is_stream
from alexnet_lab.data.stream.reading import StreamSource
from alexnet_lab.errors import UserError

log = logging.getLogger(__name__)


class Source(Protocol):
    """What lies in a dataset's folder; a label is a place in `classes`."""

    classes: tuple[str, ...]
    counts: dict[str, int]
    """Images by split."""
    transparency: Transparency | None
    """What transparent pixels are composed over, see `to_square`."""

    def images(self, split: str) -> WindowedImages: ...

    def labels(self, split: str) -> NDArray[np.int64]: ...


class StoreSource:
    """What `prepare` has made."""

    def __init__(self, folder: Path, name: str) -> None:
        self._store = open_store(folder, name)
        self.meta: StoreMeta = self._store.meta
        self.classes = tuple(known.name for known in self.meta.classes)
        self.counts = self.meta.counts
        self.transparency = self.meta.transparency

    def images(self, split: str) -> WindowedImages:
        if self.meta.format == "jpeg":
            return StoredJpegs(self._store.jpegs(split))
        mapped = self._store.images(split)  # looked at for its header's sake
        return PixelFile(self._store.folder / split / PIXELS, NPY_HEADER_BYTES, mapped.shape)

    def labels(self, split: str) -> NDArray[np.int64]:
        return self._store.labels(split)

    def mean_image(self) -> NDArray[np.float32]:
        """[256, 256, 3], grey levels 0 to 255."""
        return self._store.mean_image()


class FolderSource:
    """Image files as they lie: `train/<class>/*`, `val/<class>/*`, or any other layout that `prepare` takes."""

    def __init__(self, folder: Path, transparency: Transparency | None) -> None:
        self.transparency = transparency
        found = find_samples([folder])
        if found.left_aside:
            log.info("%s: %s images are in no split and left aside", folder, f"{found.left_aside:,}")
        if line := left_out_line(found.left_out):
            log.info("%s: %s", folder, line)
        self._splits = found.splits
        self._labels = {wnid: label for label, wnid in enumerate(found.wnids)}
        self.classes = tuple(names_by_wnid().get(wnid, wnid) for wnid in found.wnids)
        self.counts = {split: len(samples) for split, samples in found.splits.items()}

    def images(self, split: str) -> WindowedImages:
        return ImageFiles([sample.blob for sample in self._splits[split]], self.transparency)

    def labels(self, split: str) -> NDArray[np.int64]:
        return np.array([self._labels[sample.wnid] for sample in self._splits[split]], np.int64)


def open_source(
    place: str, name: str, transparency: Transparency | None = "white"
) -> StoreSource | StreamSource | FolderSource:
    """The store or the stream in the folder `place`, or else the images in it or in the archive that it is.

    A stream may be at an address, too. `transparency` applies to images; stores and streams have their own.

    Raises:
        UserError: there is neither, with the command that makes a store; or what is there is damaged.
    """
    if is_stream(place):
        return StreamSource(place, name)
    folder = Path(place)
    images = folder.is_dir() or (folder.is_file() and is_archive(folder.name))
    if (folder / META).exists() or (folder / MEAN_IMAGE).exists() or not images:
        return StoreSource(folder, name)
    try:
        return FolderSource(folder, transparency)
    except NoTrainingImages:
        return StoreSource(folder, name)  # which says that there is none, and how to make it


class StoredImages:
    """The splits of a source, which is opened when it is first needed.

    Args:
        num_classes: as the networks are told; None is refused with the true number.
        val_size: 0 validates on the source's `val`; otherwise so many training images are held out by `split_seed`.
            `test` is the source's `test`, or its `val`, since ImageNet publishes no labels of its test images, or the
            held-out ones.
        transparency: see `open_source`.
    """

    channels = 3

    def __init__(
        self,
        folder: str,
        name: str,
        num_classes: int | None,
        val_size: int,
        split_seed: int,
        transparency: Transparency | None,
    ) -> None:
        if val_size < 0:
            raise UserError(f"data.val_size must not be negative, got {val_size}")
        self.folder = folder
        self.name = name
        self._num_classes = num_classes
        self._val_size = val_size
        self._split_seed = split_seed
        self._transparency = transparency
        self._splits: dict[SplitName, Split] = {}

    @cached_property
    def source(self) -> StoreSource | StreamSource | FolderSource:
        """UserError when there is none, or when it is not as stated."""
        source = open_source(self.folder, self.name, self._transparency)
        if len(source.classes) != self._num_classes:
            raise UserError(
                f"{self.folder} has images of {len(source.classes)} classes, data.num_classes is {self._num_classes}: "
                f"state data.num_classes={len(source.classes)}"
            )
        if not self._val_size and "val" not in source.counts:
            raise UserError(f"{self.folder} has no val images: hold training images out, as in data.val_size=1000")
        return source

    @property
    def store(self) -> StoreSource | StreamSource:
        """UserError when the source has no statistics."""
        if isinstance(self.source, FolderSource):
            choice = (override("data", self.name), override("source", self.folder), "data.dir=NEW_FOLDER")
            raise UserError(
                f"{self.folder} holds plain images, whose statistics are not known: prepare it "
                f"({command('prepare', *choice)}), or state 'data.mean=[0.485,0.456,0.406]' "
                "'data.std=[0.229,0.224,0.225]' data.colour_basis=published"
            )
        return self.source

    def prepare(self) -> None:
        """Only looks: what is missing is made by the command `prepare`."""
        assert self.source

    def split(self, name: SplitName) -> Split:
        if name not in self._splits:
            self._splits[name] = self._split(name)
        return self._splits[name]

    def _split(self, name: SplitName) -> Split:
        part = self._part(name)
        split = Split(self.source.images(part), self.source.labels(part), np.arange(self.source.counts[part]))
        if part == "train" and self._val_size:
            train, val = held_out_rows(len(split.rows), self._val_size, self._split_seed)
            return split._replace(rows=train if name == "train" else val)
        return split

    def _part(self, name: SplitName) -> str:
        """Which of the source's splits it is, or is a part of."""
        if name == "train" or (name == "val" and self._val_size):
            return "train"
        return next(part for part in (name, "val", "train") if part in self.source.counts)
