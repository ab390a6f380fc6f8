"""From files to labelled samples: the same list, in the same order, whatever layout the images lie in.

| layout | what tells it |
|---|---|
| tree | `train/<class>/*`, `val/<class>/*`, also `test/<class>/*`; below any folder |
| official archives | `ILSVRC2012_img_train.tar`, `ILSVRC2012_img_val.tar`, `ILSVRC2012_devkit_t12.tar.gz` |
| Kaggle's | `ILSVRC/Data/CLS-LOC/{train/<class>,val}/*`, `LOC_val_solution.csv` |
| plain | `<class>/*`, only when there is none of the others: all of it is `train` |

A tar or a zip is read as the folder that it would unpack to.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tqdm import tqdm

from alexnet_lab.data.sources.blobs import Blob
from alexnet_lab.data.sources.listing import LABEL_FILES, Listed, list_files
from alexnet_lab.data.sources.val_labels import read_val_labels
from alexnet_lab.errors import UserError

SPLITS = ("train", "val", "test")


class NoTrainingImages(UserError):
    """What lies there is no dataset of images."""


class Sample(NamedTuple):
    wnid: str
    """The class as its folder is called: a wnid in ImageNet."""
    name: str
    blob: Blob


@dataclass(frozen=True)
class Samples:
    """What a source has: samples by split, each split sorted by class and file name."""

    wnids: tuple[str, ...]
    """The classes of `train`, sorted; a label is a place in it. With all of ImageNet's it is the published order."""
    splits: dict[str, list[Sample]]
    left_aside: int
    """Images that are in none of the splits."""
    left_out: Mapping[str, int]
    """Files that are not images that can be read, counted by suffix."""

    def digest(self) -> str:
        """SHA-256 of the samples' names and sizes in order, the same for the same images in another layout."""
        digest = hashlib.sha256()
        for split, samples in self.splits.items():
            for wnid, name, blob in samples:
                digest.update(f"{split}/{wnid}/{name}\t{blob.size}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()


def find_samples(sources: Sequence[Path]) -> Samples:
    """What is below folders and in archives, see the module's table.

    Raises:
        NoTrainingImages: there are none.
        UserError: two files are the same sample, one lies in a folder of a class, or in `train` beside plain classes, a
            class is unknown to `train` or not
            named in UTF-8, or a part of ImageNet is missing; or see `list_files`.
    """
    found: dict[str, list[Sample]] = {split: [] for split in SPLITS}
    flat_val, plain, labels, in_a_split = [], [], [], []
    left_aside = 0
    left_out: Counter[str] = Counter()
    for file in tqdm(list_files(sources, left_out), desc="listing the source", unit=" files", delay=2):
        *folders, name = file.path.split("/")
        split, wnid = ["", "", *folders][-2:]
        if name in LABEL_FILES:
            labels.append(file)
        elif split in SPLITS:
            found[split].append(Sample(wnid, name, file.blob))
        elif wnid == "val":
            flat_val.append(file)
        elif not set(SPLITS).isdisjoint(folders[:-1]):
            raise UserError(
                f"source: {file.path} lies too deep; classes are the folders directly in train, val or test"
            )
        elif wnid and wnid not in SPLITS:
            plain.append(Sample(wnid, name, file.blob))
        else:
            left_aside += 1
            in_a_split += [file.path] if wnid else []
    if found["train"] and flat_val and (labels or not found["val"]):
        found["val"] += _with_labels(flat_val, labels)
    else:
        left_aside += len(flat_val)
    if any(found.values()):
        left_aside += len(plain)
    else:
        found["train"] = plain
        _check_plain(plain, in_a_split + [file.path for file in flat_val])
    splits = {split: sorted(samples) for split, samples in found.items() if samples}
    _check(splits, sources)
    return Samples(tuple(sorted({sample.wnid for sample in splits["train"]})), splits, left_aside, left_out)


def _check_plain(plain: list[Sample], in_a_split: list[str]) -> None:
    """Refuse `train/*` beside `<class>/*`: no part of a tree, and as a class it would be lost without a word."""
    if plain and in_a_split:
        raise UserError(
            f"source: {in_a_split[0]} is in no class; {', '.join(SPLITS)} are folders of classes, and no classes' names"
        )


def _is_text(name: str) -> bool:
    """Whether a file's name is UTF-8; Python has surrogates for bytes that are not."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _with_labels(images: list[Listed], labels: list[Listed]) -> list[Sample]:
    wnids = read_val_labels(labels)
    samples = []
    for path, blob in images:
        name = PurePosixPath(path)
        if name.stem not in wnids:
            raise UserError(f"source: the validation labels have no class for {path}")
        samples.append(Sample(wnids[name.stem], name.name, blob))
    return samples


def _check(splits: dict[str, list[Sample]], sources: Sequence[Path]) -> None:
    if "train" not in splits:
        raise NoTrainingImages(
            f"source: there are no training images in {', '.join(map(str, sources))}; expected are train/<class>/*, "
            "<class>/*, a tar of these, ImageNet's official archives, or Kaggle's folder"
        )
    first = splits["train"][0]
    if Path(first.blob.file).name == "ILSVRC2012_img_train.tar" and "val" not in splits:
        raise UserError(f"source: {first.blob.file} is there, ILSVRC2012_img_val.tar is missing beside it")
    known = {sample.wnid for sample in splits["train"]}
    for wnid in known:
        if not _is_text(wnid):
            raise UserError(f"source: the class folder {wnid!r} is not named in UTF-8; rename it")
    for split, samples in splits.items():
        for one, two in pairwise(samples):
            if one[:2] == two[:2]:
                raise UserError(f"source: {split}/{one.wnid}/{one.name} is there twice: {one.blob} and {two.blob}")
        unknown = sorted({sample.wnid for sample in samples} - known)
        if unknown:
            raise UserError(f"source: {split} has classes without training images: {', '.join(unknown[:9])}")
