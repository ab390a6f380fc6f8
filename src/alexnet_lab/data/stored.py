"""ImageNet and similar datasets: RGB images of 256 x 256 from a store, or from image files scaled on reading."""

import logging
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from alexnet_lab.command_line import command, override
from alexnet_lab.data.contents import Contents
from alexnet_lab.data.dataset import Split, SplitName, held_out_rows, suggested_val_size
from alexnet_lab.data.photo_sources import FolderSource, StoreSource, open_source
from alexnet_lab.data.readable import Unread, undecodable, without_header
from alexnet_lab.data.spec import labels_of
from alexnet_lab.data.store.modes import Transparency
from alexnet_lab.data.stream.reading import StreamSource
from alexnet_lab.errors import UserError, names_of, printable

log = logging.getLogger(__name__)

OnUnreadable = Literal["fail", "skip"]
SHOWN = 10
"""Number of unreadable files in a message."""


class StoredImages:
    """The splits of a source, which is opened at first use.

    Args:
        num_classes: as configured; None: as many as the source has.
        val_size: 0 validates on the source's `val`; otherwise this many training images are held out by `split_seed`.
            None: 0 if there is a `val`, otherwise see `suggested_val_size`.
            `test` is the source's `test`, or its `val`, since ImageNet publishes no labels of its test images, or the
            held-out ones.
        transparency: see `open_source`.
        unreadable: how to treat image files in a folder that cannot be read. `fail`: `prepare` refuses files without a
            header, and a file that cannot be decoded raises a UserError when it is used. `skip`: all files are decoded
            once when the source is opened, and those that fail are left out; see also `leave_out`.
    """

    channels = 3

    def __init__(
        self,
        folder: str,
        name: str,
        num_classes: int | None,
        val_size: int | None,
        split_seed: int,
        transparency: Transparency | None = None,
        unreadable: OnUnreadable = "fail",
    ) -> None:
        if val_size is not None and val_size < 0:
            raise UserError(f"data.val_size must not be negative, got {val_size}")
        self.folder = folder
        self.name = name
        self._num_classes = num_classes
        self._given_val_size = val_size
        self._split_seed = split_seed
        self._transparency = transparency
        self._unreadable = unreadable
        self._left_out: Collection[str] | None = None
        self._network_classes: tuple[str, ...] | None = None
        self._headers_checked = False
        self._parts: dict[str, Split] = {}
        self._splits: dict[SplitName, Split] = {}
        self._contents: dict[SplitName, Contents] = {}

    @property
    def skips_unreadable(self) -> bool:
        """Whether the images found by `find_unreadable` are left out."""
        return self._unreadable == "skip" and isinstance(self.source, FolderSource)

    @cached_property
    def _readable(self) -> StoreSource | StreamSource | FolderSource:
        """The source without the left-out images; UserError if a class has no other images."""
        source = self.source
        if self._unreadable == "skip" and isinstance(source, FolderSource):
            if self._left_out is None:
                self._left_out = {image.file for image in self.find_unreadable()}
            source.leave_out(self._left_out)
        return source

    @cached_property
    def source(self) -> StoreSource | StreamSource | FolderSource:
        """The source of all images. UserError if there is none, or if it differs from the configuration."""
        if self._network_classes is not None:
            return open_source(self.folder, None, self._transparency)
        source = open_source(self.folder, self.name, self._transparency)
        if self._num_classes is None and len(source.classes) == 1:
            raise UserError(
                f"{self.folder} has images of one class only ({names_of(source.classes)}): a network needs two or more "
                "to tell apart; the images of each class are in a folder of their own"
            )
        if self._num_classes not in (None, len(source.classes)):
            raise UserError(
                f"{self.folder} has images of {len(source.classes)} classes ({names_of(source.classes)}), "
                f"data.num_classes is {self._num_classes}: set data.num_classes={len(source.classes)}"
            )
        if self._given_val_size == 0 and "val" not in source.counts:
            size = suggested_val_size(source.counts["train"], len(source.classes))
            raise UserError(
                f"{self.folder} has no val images: hold out training images, for example data.val_size={size}"
            )
        if self._given_val_size and "val" in source.counts:
            log.info(
                "%s: not used, since data.val_size holds out training images: %s val images",
                self.folder,
                f"{source.counts['val']:,}",
            )
        return source

    @cached_property
    def _val_size(self) -> int:
        """The number of training images that are held out."""
        if self._given_val_size is not None:
            return self._given_val_size
        counts = self.source.counts
        return 0 if "val" in counts else suggested_val_size(counts["train"], len(self.source.classes))

    def found(self) -> dict[str, int]:
        """The settings that are None, with their values for these images."""
        values = {"num_classes": lambda: len(self.source.classes), "val_size": lambda: self._val_size}
        given = {"num_classes": self._num_classes, "val_size": self._given_val_size}
        return {key: values[key]() for key in given if given[key] is None}

    def find_unreadable(self) -> list[Unread]:
        """The images of a folder that cannot be decoded, by decoding those that the cache does not have."""
        source = self.source
        if not isinstance(source, FolderSource):
            return []
        found = undecodable(Path(self.folder), source.named_images())
        if found:
            log.warning("left out: %s unreadable images\n%s", f"{len(found):,}", _listed(found, source.paths()))
        return found

    def label_as(self, classes: Sequence[str]) -> None:
        """Make the labels those of a network with these classes, of which the source may have a part. Call this first.

        Any dataset will do then; without `val` and `test` images, all are evaluated.
        """
        self._network_classes = tuple(classes)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the labels."""
        return self.source.classes if self._network_classes is None else self._network_classes

    def part_of_classes(self) -> str:
        """A line about the source's classes if it has fewer than the network, or ''; UserError if it has others."""
        found, known, number = self.source.classes, self.classes, len(self._label_of)
        if number == len(known):
            return ""
        return f"classes: {self.folder} has {number:,} of the network's {len(known):,}: {names_of(found, 10)}"

    @cached_property
    def _label_of(self) -> NDArray[np.int64]:
        """[classes of the source], the label of each; UserError if the network does not have them all."""
        found = self.source.classes
        return np.array(labels_of(found, self.classes, f"{self.folder} (data.dir)"), np.int64)

    def leave_out(self, names: Collection[str]) -> None:
        """Leave out these images instead of those of `find_unreadable`. Call this first."""
        self._left_out = names

    @property
    def store(self) -> StoreSource | StreamSource:
        """The statistics; UserError if the source has none."""
        if isinstance(self.source, FolderSource):
            choice = (override("data", self.name), override("source", self.folder), "data.dir=NEW_FOLDER")
            raise UserError(
                f"{self.folder} contains image files without statistics: prepare it "
                f"({command('prepare', *choice)}), or set 'data.mean=[0.485,0.456,0.406]' "
                "'data.std=[0.229,0.224,0.225]' data.colour_basis=published"
            )
        return self.source

    def prepare(self) -> None:
        """Only checks; the command `prepare` creates missing data.

        Raises:
            UserError: see `source`; or image files have no header.
        """
        source = self._readable
        if self._unreadable == "fail" and isinstance(source, FolderSource) and not self._headers_checked:
            images = source.named_images()
            found = without_header(images)
            if found:
                names, unread = {name for name, _ in images}, {image.file for image in found}
                every, readable = ({name.rpartition("/")[0] for name in some} for some in (names, names - unread))
                skip = "" if every - readable else ", or train without them: data.unreadable=skip"
                raise UserError(
                    f"{len(found):,} of {len(images):,} image files in {self.folder} cannot be read:\n"
                    f"{_listed(found, source.paths())}\nreplace or remove them{skip}"
                )
            self._headers_checked = True

    def split(self, name: SplitName) -> Split:
        if name not in self._splits:
            self._splits[name] = self._split(name)
        return self._splits[name]

    def _split(self, name: SplitName) -> Split:
        part = self._part(name)
        if part not in self._parts:
            source = self._readable
            self._parts[part] = Split(
                source.images(part), self._label_of[source.labels(part)], np.arange(source.counts[part])
            )
        split = self._parts[part]
        if part == "train" and self._val_size:
            train, val = held_out_rows(len(split.rows), self._val_size, self._split_seed)
            return split._replace(rows=train if name == "train" else val)
        return split

    def contents(self) -> dict[SplitName, Contents]:
        """The images of the source that each split consists of, or is drawn from."""
        if not self._contents:
            source = self._readable
            parts: dict[SplitName, str] = {name: self._part(name) for name in get_args(SplitName)}
            known = {part: (source.counts[part], source.identity(part)) for part in {*parts.values()}}
            self._contents = {
                name: Contents(*known[part], is_held_out=name != "train" and part == "train")
                for name, part in parts.items()
            }
        return self._contents

    def _part(self, name: SplitName) -> str:
        """The split of the source that contains its images."""
        if name == "train" or (name == "val" and self._val_size):
            return "train"
        return next(part for part in (name, "val", "train") if part in self._readable.counts)


def _listed(unread: Sequence[Unread], paths: Mapping[str, str]) -> str:
    """One line per file, for the first few; `paths`: see `FolderSource.paths`."""
    lines = [f"  {printable(paths[image.file])}: {printable(image.reason)}" for image in unread[:SHOWN]]
    more = [f"  and {len(unread) - SHOWN:,} more"] if len(unread) > SHOWN else []
    return "\n".join([*lines, *more])
