"""Opens a dataset's folder: a store, a stream, or image files that are decoded on demand."""

import logging
import os
from collections.abc import Collection
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from alexnet_lab.data.contents import identity_of
from alexnet_lab.data.encoded import ImageFiles, StoredJpegs
from alexnet_lab.data.gather import PixelFile, WindowedImages
from alexnet_lab.data.image_kinds import ARCHIVE_SUFFIXES
from alexnet_lab.data.imagenet_classes import names_by_wnid
from alexnet_lab.data.sources.blobs import Blob
from alexnet_lab.data.sources.listing import is_archive
from alexnet_lab.data.sources.samples import NoTrainingImages, Sample, find_samples
from alexnet_lab.data.store.format import MEAN_IMAGE, META, NPY_HEADER_BYTES, PIXELS, StoreMeta
from alexnet_lab.data.store.modes import Transparency
from alexnet_lab.data.store.reading import open_store
from alexnet_lab.data.stream.layout import is_stream
from alexnet_lab.data.stream.reading import StreamSource
from alexnet_lab.errors import UserError

log = logging.getLogger(__name__)


class Source(Protocol):
    """The images of a dataset's folder; a label is an index into `classes`."""

    classes: tuple[str, ...]
    counts: dict[str, int]
    """Images by split."""
    transparency: Transparency | None
    """The background of transparent pixels, see `to_square`."""

    def images(self, split: str) -> WindowedImages: ...

    def labels(self, split: str) -> NDArray[np.int64]: ...

    def identity(self, split: str) -> str:
        """The identity of the split's images, see `Contents`."""


class StoreSource:
    """A store, written by `prepare`."""

    def __init__(self, folder: Path, name: str | None) -> None:
        self._store = open_store(folder, name)
        self.meta: StoreMeta = self._store.meta
        self.classes = tuple(known.name for known in self.meta.classes)
        self.counts = self.meta.counts
        self.transparency = self.meta.transparency

    def images(self, split: str) -> WindowedImages:
        if self.meta.format == "jpeg":
            return StoredJpegs(self._store.jpegs(split))
        mapped = self._store.images(split)  # reads only its header
        return PixelFile(self._store.folder / split / PIXELS, NPY_HEADER_BYTES, mapped.shape)

    def labels(self, split: str) -> NDArray[np.int64]:
        return self._store.labels(split)

    def identity(self, split: str) -> str:
        return self.meta.identity()

    def mean_image(self) -> NDArray[np.float32]:
        """[256, 256, 3], grey levels 0 to 255."""
        return self._store.mean_image()


class FolderSource:
    """Image files in a folder or archive: `train/<class>/*`, `val/<class>/*`, or another layout."""

    def __init__(self, folder: Path, transparency: Transparency | None) -> None:
        self.transparency = transparency
        self._folder = folder
        found = find_samples([folder], "data.dir")
        for remark in found.remarks:
            log.info("%s: %s", folder, remark)
        self._splits = found.splits
        self._labels = {wnid: label for label, wnid in enumerate(found.wnids)}
        self.classes = tuple(names_by_wnid().get(wnid, wnid) for wnid in found.wnids)

    @property
    def counts(self) -> dict[str, int]:
        return {split: len(samples) for split, samples in self._splits.items()}

    def named_images(self) -> list[tuple[str, Blob]]:
        """All images of all splits, by `split/class/file`."""
        return [(_name(split, sample), sample.blob) for split, found in self._splits.items() for sample in found]

    def leave_out(self, names: Collection[str]) -> None:
        """Drop these images, as if their files did not exist; unknown names have no effect.

        Raises:
            UserError: a class or a split would have no images.
        """
        for split, samples in self._splits.items():
            kept = [sample for sample in samples if _name(split, sample) not in names]
            lost = {sample.wnid for sample in samples} - {sample.wnid for sample in kept}
            if lost and (split == "train" or not kept):
                raise UserError(f"data.unreadable=skip: no image of {split}/{min(lost)} can be read")
            self._splits[split] = kept

    def images(self, split: str) -> WindowedImages:
        samples = self._splits[split]

        def name(row: int) -> str:
            sample = samples[row]
            return f"{_name(split, sample)} in {sample.blob.file}" if _is_packed(sample) else sample.blob.file

        def path(row: int) -> str:
            return self._path(split, samples[row])

        return ImageFiles([sample.blob for sample in samples], self.transparency, name, path)

    def paths(self) -> dict[str, str]:
        """The files below the folder, by `split/class/file`; those in an archive keep that name."""
        return {
            _name(split, sample): self._path(split, sample) for split, found in self._splits.items() for sample in found
        }

    def _path(self, split: str, sample: Sample) -> str:
        return _name(split, sample) if _is_packed(sample) else os.path.relpath(sample.blob.file, self._folder)

    def labels(self, split: str) -> NDArray[np.int64]:
        return np.array([self._labels[sample.wnid] for sample in self._splits[split]], np.int64)

    def identity(self, split: str) -> str:
        return identity_of(f"{sample.wnid}/{sample.name}" for sample in self._splits[split])


def _is_packed(sample: Sample) -> bool:
    """Whether the image is in an archive."""
    return Path(sample.blob.file).name != Path(sample.name).name


def _name(split: str, sample: Sample) -> str:
    return f"{split}/{sample.wnid}/{sample.name}"


def open_source(
    place: str, name: str | None, transparency: Transparency | None = "white"
) -> StoreSource | StreamSource | FolderSource:
    """Open the store, stream or images in the folder or archive `place`.

    A stream can also be at an address. `name` is the expected dataset of a store or a stream, None
    for any. `transparency` applies to images; stores and streams have their own.

    Raises:
        UserError: nothing is found (the message gives the command that makes a store), or the data are damaged.
    """
    if is_stream(place):
        return StreamSource(place, name)
    folder = Path(place)
    if folder.is_file() and not is_archive(folder.name):
        suffixes = " or ".join(sorted(ARCHIVE_SUFFIXES))
        raise UserError(f"{place} (data.dir) is a file, but not an archive that can be read ({suffixes}), or a folder")
    if (folder / META).exists() or (folder / MEAN_IMAGE).exists() or not folder.exists():
        return StoreSource(folder, name)
    try:
        return FolderSource(folder, transparency)
    except NoTrainingImages as error:
        try:
            return StoreSource(folder, name)  # reports that there is no store, and how to make it
        except UserError as missing:
            raise UserError("\n".join([str(missing), *error.left_out])) from None
