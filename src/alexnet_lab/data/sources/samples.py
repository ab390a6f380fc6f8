"""Turns files into labelled samples: the same list, in the same order, for every layout of the images.

| layout | recognised by |
|---|---|
| tree | `train/<class>/*`, `val/<class>/*`, also `test/<class>/*`, spelled as in `split_names` |
| official archives | `ILSVRC2012_img_train.tar`, `ILSVRC2012_img_val.tar`, `ILSVRC2012_devkit_t12.tar.gz` |
| Kaggle's | `ILSVRC/Data/CLS-LOC/{train/<class>,val}/*`, `LOC_val_solution.csv` |
| plain | `<class>/*` or `<name>/<class>/*`, only when there are no splits: all of it is `train` |

An archive is read like its unpacked folder. Images of a class may be in subfolders.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tqdm import tqdm

from alexnet_lab.data.image_kinds import LeftOut
from alexnet_lab.data.sources.blobs import Blob
from alexnet_lab.data.sources.layout import EXPECTED, Layout, classes_of, find_layout
from alexnet_lab.data.sources.listing import LABEL_FILES, Listed, is_ignored, list_files
from alexnet_lab.data.sources.tree import Place, folders_of
from alexnet_lab.data.sources.val_labels import read_val_labels
from alexnet_lab.errors import UserError, names_of, printable

IMAGENET_VAL = "ILSVRC2012_val_"
"""Prefix of ImageNet's val images, whose classes are in a table."""


class NoTrainingImages(UserError):
    """There are no training images; `left_out` are lines about the files found."""

    def __init__(self, message: str, left_out: Sequence[str]) -> None:
        super().__init__("\n".join([message, *left_out]))
        self.left_out = left_out


class Sample(NamedTuple):
    wnid: str
    """The name of the class's folder: a wnid in ImageNet."""
    name: str
    """The file's path relative to the class's folder."""
    blob: Blob


@dataclass(frozen=True)
class Samples:
    """The samples of a source by split, each split sorted by class and name."""

    wnids: tuple[str, ...]
    """The classes of `train`, sorted; a label is an index into it. For all of ImageNet, this is the published order."""
    splits: dict[str, list[Sample]]
    remarks: tuple[str, ...]
    """Lines for the user: ignored files, and classes that a split lacks."""

    def digest(self) -> str:
        """SHA-256 of the samples' names and sizes in order; the same images in another layout have the same."""
        digest = hashlib.sha256()
        for split, samples in self.splits.items():
            for wnid, name, blob in samples:
                digest.update(f"{split}/{wnid}/{name}\t{blob.size}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()


def find_samples(sources: Sequence[Path], option: str = "source") -> Samples:
    """The samples in folders and archives, see the module's table; `option` is named in messages.

    Raises:
        NoTrainingImages: there are no images.
        UserError: two files are the same sample, a folder could be a split or a class, `train` lacks a class, a class
            name is not UTF-8, or a part of ImageNet is missing; or see `list_files` and `find_layout`.
    """
    images: list[Listed] = []
    labels: list[Listed] = []
    left_out = LeftOut()
    for file in tqdm(list_files(sources, left_out, option), desc="listing the source", unit=" files", delay=2):
        (labels if file.path.rpartition("/")[2] in LABEL_FILES else images).append(file)
    if not images:
        where = ", ".join(map(str, sources))
        raise NoTrainingImages(
            f"{option}: there are no training images in {where}; {EXPECTED}, an archive of these, ImageNet's official "
            "archives, or Kaggle's folder",
            left_out.lines(),
        )
    place = Place(option, sources)
    layout = find_layout(folders_of(images), place)
    splits = {}
    for split, folder in layout.splits.items():
        if folder.files:  # all in one folder, without class folders
            found = [] if split == "test" else _with_labels(folder.files, labels, place)
        else:
            found = [
                Sample(wnid, name, blob)
                for wnid, files in classes_of(folder, place).items()
                for name, (_, blob) in files
            ]
        if found:
            splits[split] = sorted(found)
    _check(splits, option)
    wnids = tuple(sorted({sample.wnid for sample in splits["train"]}))
    remarks = [*_remarks(layout, splits), *_empty_folders(layout, sources), *left_out.lines()]
    return Samples(wnids, splits, tuple(remark for remark in remarks if remark))


def _with_labels(images: list[Listed], labels: list[Listed], place: Place) -> list[Sample]:
    if not (labels or any(f"/{IMAGENET_VAL}" in f"/{path}" for path, _ in images)):
        place.refuse(
            f"{place.of(images[0].path)} is a val image without a folder of its class; move each val image into "
            "val/<class>, with the classes of train, or move the val images away"
        )
    try:
        wnids = read_val_labels(labels)
    except UserError as error:
        place.refuse(str(error))
    samples = []
    for path, blob in images:
        name = PurePosixPath(path)
        if name.stem not in wnids:
            place.refuse(f"the validation labels have no class for {printable(path)}")
        samples.append(Sample(wnids[name.stem], name.name, blob))
    return samples


def _is_text(name: str) -> bool:
    """Whether a file's name is valid UTF-8; Python represents invalid bytes by surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check(splits: dict[str, list[Sample]], option: str) -> None:
    first = splits["train"][0]
    if Path(first.blob.file).name == "ILSVRC2012_img_train.tar" and "val" not in splits:
        raise UserError(f"{option}: ILSVRC2012_img_val.tar is missing next to {first.blob.file}")
    known = {sample.wnid for sample in splits["train"]}
    for wnid in known:
        if not _is_text(wnid):
            raise UserError(f"{option}: the class folder {wnid!r} has a name that is not UTF-8; rename it")
    for split, samples in splits.items():
        for one, two in pairwise(samples):
            if one[:2] == two[:2]:
                raise UserError(
                    f"{option}: {split}/{one.wnid}/{one.name} exists twice: in {one.blob.file} and {two.blob.file}"
                )
        unknown = sorted({sample.wnid for sample in samples} - known)
        if unknown:
            raise UserError(
                f"{option}: {split} has classes without training images: {names_of(unknown)}; "
                f"the classes of train: {names_of(sorted(known))}"
            )


def _remarks(layout: Layout, splits: dict[str, list[Sample]]) -> tuple[str, ...]:
    aside = {one.path: sum(1 for _ in one.below()) for one in layout.aside}
    remarks = [
        f"left out, in no split: {printable(path)} ({count:,} image{'s' * (count > 1)})"
        for path, count in aside.items()
    ]
    if layout.wrapper:
        classes = names_of(layout.splits["train"].subfolders)
        remarks.append(f"the classes are the folders in {printable(layout.wrapper)}, the only folder: {classes}")
    if layout.stray:
        remarks.append(f"left out, in no split: {names_of([file.path for file in layout.stray])}")
    for split in layout.splits.keys() - splits.keys():
        count = len(layout.splits[split].files)
        remarks.append(
            f"left out: {count:,} images in {printable(layout.splits[split].path)}, without folders of classes"
        )
    known = {sample.wnid for sample in splits["train"]}
    for split, samples in splits.items():
        lacking = sorted(known - {sample.wnid for sample in samples})
        if lacking:
            remarks.append(f"{split} has no images of {len(lacking):,} of {len(known):,} classes: {names_of(lacking)}")
    return tuple(remarks)


def _empty_folders(layout: Layout, sources: Sequence[Path]) -> list[str]:
    """A remark about folders that would be classes but have no images."""
    remarks = []
    for source, (split, folder) in product(sources, layout.splits.items()):
        if folder.subfolders and (source / folder.path).is_dir():
            entries = sorted(entry.name for entry in os.scandir(source / folder.path) if os.path.isdir(entry))
            empty = [name for name in entries if name not in folder.subfolders and not is_ignored(name)]
            remarks += [f"no class of {split}, as they have no images: {names_of(empty)}"] if empty else []
    return remarks
