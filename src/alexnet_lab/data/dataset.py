"""The interface of a dataset: three splits and the facts about them.

Shapes: M stored images, n samples of a split, C channels, H W stored size.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from alexnet_lab.data.contents import Contents, SplitName
from alexnet_lab.data.gather import WindowedImages
from alexnet_lab.data.sampler import SPLIT_STREAM, random_order
from alexnet_lab.data.spec import DataSpec
from alexnet_lab.errors import UserError, names_of


class Split(NamedTuple):
    """Sample i of the split is `images[rows[i]]`, so that two splits can share one array."""

    images: NDArray[np.uint8] | WindowedImages
    """[M, C, H, W]: one array for small images, otherwise an object that returns windows."""
    labels: NDArray[np.int64]
    """[M], in [0, num_classes)"""
    rows: NDArray[np.int64]
    """[n]"""

    def is_same(self, other: "Split") -> bool:
        """Whether the other has the same samples of the same images."""
        return self.images is other.images and np.array_equal(self.rows, other.rows)

    def image(self, sample: int) -> NDArray[np.uint8]:
        """The stored pixels of a sample, [C, H, W]."""
        row = int(self.rows[sample])
        if isinstance(self.images, np.ndarray):
            return self.images[row]
        return self.images.window(row, 0, 0, *self.images.shape[2:]).transpose(2, 0, 1).copy()

    def paths(self) -> list[str] | None:
        """The file of each sample, relative to the dataset's folder; None where the dataset keeps no names."""
        path = getattr(self.images, "path", None)
        return [path(row) for row in self.rows.tolist()] if path else None


class ImageDataset(Protocol):
    """The interface that `ImageDataModule` uses."""

    @property
    def spec(self) -> DataSpec: ...

    def prepare(self) -> None:
        """Downloads or checks the files; called in one process per machine."""

    def split(self, name: SplitName) -> Split:
        """One of the splits, loaded at the first call."""

    def contents(self) -> Mapping[SplitName, Contents]:
        """The images of each split; empty if the settings alone determine them."""

    def places(self) -> list[str]:
        """Lines that name the locations of the files."""


def check_members(dataset: object) -> None:
    """Raises UserError if `dataset` lacks a member of `ImageDataset`; it evaluates none, since files may be missing."""
    if missing := [name for name in vars(ImageDataset) if name[0] != "_" and name not in dir(dataset)]:
        raise UserError(
            f"data: {type(dataset).__name__} has no {', '.join(missing)}; see ImageDataset in data/dataset.py"
        )


def overview(dataset: ImageDataset, with_test: bool = True) -> str:
    """One line about the classes, one about the images of each split, and one if held-out images lack a class."""
    classes = dataset.spec.classes
    names: tuple[SplitName, ...] = ("train", "val", "test") if with_test else ("train", "val")
    splits = {name: dataset.split(name) for name in names}
    images = ", ".join(f"{len(split.rows):,} {name}" for name, split in splits.items())
    if with_test and splits["test"].is_same(splits["val"]):
        images += ", which are the val images"
    lines = [f"classes: {len(classes):,}: {names_of(classes)}", f"images: {images}"]
    if splits["val"].images is splits["train"].images:
        lacking = [(name, _without_images(splits[name], classes)) for name in ("train", "val")]
        found = [f"no {name} image of {names_of(missing)}" for name, missing in lacking if missing]
        lines += [f"val images are held out without regard to classes: {'; '.join(found)}"] if found else []
    return "\n".join(lines)


def _without_images(split: Split, classes: Sequence[str]) -> list[str]:
    counts = np.bincount(split.labels[split.rows], minlength=len(classes)).tolist()
    return [name for name, count in zip(classes, counts, strict=True) if not count]


def held_out_rows(num_samples: int, val_size: int, split_seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows for training and the `val_size` rows held out for validation, ascending; depends only on the arguments.

    Raises:
        UserError: no images would be left for training or validation, or the seed is negative.
    """
    if split_seed < 0:
        raise UserError(f"data.split_seed must not be negative, got {split_seed}")
    if not 1 <= val_size < num_samples:
        raise UserError(f"data.val_size must be in [1, {num_samples - 1}], got {val_size}")
    order = random_order(num_samples, split_seed, stream=SPLIT_STREAM)
    return np.sort(order[val_size:]), np.sort(order[:val_size])


def suggested_val_size(num_samples: int, num_classes: int) -> int:
    """A tenth of the training images, at least one per class, at most half of them."""
    return max(1, min(max(num_samples // 10, num_classes), num_samples // 2))
