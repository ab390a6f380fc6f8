"""Finds the splits and classes in the folders of a source. Ambiguous layouts are refused.

Classes are the top folders of a split, as in torchvision's ImageFolder; their images may be at any depth. A source
without splits is a single split, `train`, whose classes are the top folders. If the only top folder contains folders,
such as `flowers/` in many archives, those are the classes. Top folders that all contain folders of the same names may
be splits under other names, and are refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from alexnet_lab.data.sources.listing import Listed
from alexnet_lab.data.sources.split_names import SPLITS, UNCLEAR, are_named_like_parts, split_meant, splits_mentioned
from alexnet_lab.data.sources.tree import Folder, Place
from alexnet_lab.errors import names_of, printable

LEFT_OUT = {"ILSVRC2012_img_train_t3", "ILSVRC2012_img_test", "ILSVRC2012_img_test_v10102019"}
"""ImageNet's archives of images that are already in the training set, and of images without labels."""
EXPECTED = "expected are train/<class>/* and val/<class>/*, or <class>/*"
MOVE_CLASSES = "move all class folders into a folder called train"
IF_CLASS = f"if it is a class, {MOVE_CLASSES}"


@dataclass(frozen=True)
class Layout:
    splits: dict[str, Folder]
    """By `train`, `val` and `test`: the folder that contains the class folders."""
    aside: list[Folder]
    """Folders next to the splits; their images belong to no split."""
    stray: list[Listed]
    """Images next to the splits or above them."""
    wrapper: str = ""
    """Without splits: the only top folder, which contains the classes; empty if the classes are at the top."""


def find_layout(root: Folder, place: Place) -> Layout:
    """The splits of a source that has images.

    Raises:
        UserError: a folder's name or position is ambiguous; splits clash or have no classes.
    """
    level = root
    stray = [*root.files]
    while len(level.subfolders) == 1 and _is_wrapper(folder := next(iter(level.subfolders.values()))):
        level = folder
        stray += level.files
    named = _named_like_splits(level)
    if not named:
        return _plain(root, level, stray, place)
    splits = _splits(level, named, place)
    aside = [folder for name, folder in level.subfolders.items() if name not in named]
    _check_aside(aside, splits, place)
    for folder in splits.values():
        _check_classes(folder, splits, place)
    return Layout(splits, aside, stray)


def classes_of(folder: Folder, place: Place) -> Mapping[str, list[tuple[str, Listed]]]:
    """By class: its images, with paths relative to the class's folder."""
    flat = [one for one in folder.subfolders.values() if one.files]
    deep = [one for one in folder.subfolders.values() if one.subfolders]
    if flat and deep:
        one, two = flat[0].files[0].path, next(iter(next(iter(deep[0].subfolders.values())).below())).path
        place.refuse(
            f"the class folders of {place.of(folder.path)} have images at different depths, as {printable(one)} and "
            f"{printable(two)}, so the classes are unclear; move the images of each class into its folder, or all into "
            "subfolders of it"
        )
    return {
        name: [(file.path.removeprefix(f"{one.path}/"), file) for file in one.below()]
        for name, one in folder.subfolders.items()
    }


def _is_wrapper(folder: Folder) -> bool:
    """Whether an only folder is just a wrapper of the dataset, such as `flowers/` in `flowers.zip`."""
    inner, meant = _named_like_splits(folder), split_meant(folder.name)
    if meant is None:
        return bool(folder.subfolders)
    return not folder.files and len(inner) == len(folder.subfolders) and {*inner.values()} != {meant.split}


def _named_like_splits(folder: Folder) -> dict[str, str]:
    """The split of each subfolder that is named like one."""
    meant = {name: split_meant(name) for name in folder.subfolders if name not in LEFT_OUT}
    return {name: found.split for name, found in meant.items() if found}


def _plain(root: Folder, level: Folder, stray: list[Listed], place: Place) -> Layout:
    """The layout of classes without splits."""
    classes = {name: folder for name, folder in level.subfolders.items() if name not in LEFT_OUT}
    # An archive without folders is not the folder of a class.
    if not classes or (len(classes) == 1 and level is root and not place.is_one_folder):
        place.refuse(f"there are no training images in folders of classes in {place.of('')}; {EXPECTED}")
    if stray:
        place.refuse(
            f"{place.of(stray[0].path)} is next to class folders ({names_of(classes)}); move it into the folder of "
            "its class, or move it away"
        )
    mentioning = [name for name in classes if splits_mentioned(name)]
    if len(set().union(*map(splits_mentioned, mentioning))) > 1:
        place.refuse(f"{names_of(mentioning)} in {place.of(level.path)} are named like splits; {EXPECTED}")
    for folder in classes.values():
        _refuse_splits_below(folder, place)
    _check_not_splits(level, classes, place)
    aside = [folder for name, folder in level.subfolders.items() if name in LEFT_OUT]
    wrapper = "" if level is root or place.is_archive(level) else level.path
    return Layout({"train": Folder(level.path, [], classes)}, aside, [], wrapper)


def _check_not_splits(level: Folder, classes: Mapping[str, Folder], place: Place) -> None:
    """Refuse folders such as `fold1, fold2` or `tr, te` with the same subfolders: these are not classes."""
    if not are_named_like_parts(classes):
        return
    inner = [{*folder.subfolders} for folder in classes.values() if not folder.files]
    if len(inner) < max(2, len(classes)):
        return
    shared, all_names = set.intersection(*inner), set.union(*inner)
    if len(shared) >= 2 and 2 * len(shared) >= len(all_names):
        place.refuse(
            f"the folders in {place.of(level.path)} ({names_of(classes)}) all have folders of the same names "
            f"({names_of(sorted(shared))}), so they may be splits, not classes; rename them to train, val or test "
            f"if they are; if they are classes, {MOVE_CLASSES}"
        )


def _splits(level: Folder, named: Mapping[str, str], place: Place) -> dict[str, Folder]:
    """By split: the folder of its classes; `named` are the folders in `level` that are named like splits."""
    where, folders = place.of(level.path), level.subfolders
    unclear = [name for name, split in named.items() if split == UNCLEAR]
    if unclear:
        place.refuse(f"{names_of(unclear)} in {where} could be two splits: rename it to train, val or test; {IF_CLASS}")
    for split in SPLITS:
        same = [name for name, other in named.items() if other == split]
        if len(same) > 1:
            place.refuse(f"{names_of(same)} in {where} are all named like the {split} split; keep one, or merge them")
    found = {split: _innermost(folders[name]) for name, split in named.items()}
    others = [name for name in folders if name not in named]
    if "train" not in found:
        be, like, it = ("is", "a split", "it") if len(named) == 1 else ("are", "splits", "them")
        beside = f", the folders next to {it} ({names_of(others)}) are not" if others else ""
        place.refuse(
            f"there are no training images: {names_of(named)} in {where} {be} named like {like}{beside}; {EXPECTED}; "
            f"{IF_CLASS}"
        )
    if not found["train"].subfolders:
        name = next(name for name, split in named.items() if split == "train")
        place.refuse(f"{name} in {where} is the training split, but has no folders of classes; {EXPECTED}; {IF_CLASS}")
    inexact = [name for name in named if not split_meant(name).exactly]  # type: ignore[union-attr]
    if others and len(named) == 1 and inexact:
        place.refuse(
            f"{inexact[0]} in {where} is named like a split, but {names_of(others)} next to it are not; {IF_CLASS}"
        )
    return {split: found[split] for split in SPLITS if split in found}


def _innermost(folder: Folder) -> Folder:
    """`seg_train/seg_train` for `seg_train`, as in some archives."""
    meant = split_meant(folder.name)
    while not folder.files and len(folder.subfolders) == 1:
        (inner,) = folder.subfolders.values()
        found = split_meant(inner.name)
        if not (meant and found and found.split == meant.split):
            break
        folder = inner
    return folder


def _check_aside(aside: list[Folder], splits: Mapping[str, Folder], place: Place) -> None:
    """Refuse a folder next to the splits that may be a split, a part of one, or a class."""
    for folder in aside:
        if folder.name in LEFT_OUT:
            continue
        if splits_mentioned(folder.name):
            place.refuse(f"{place.of(folder.path)} may be a split; rename it to train, val or test, or move it away")
        if folder.name in splits["train"].subfolders:
            place.refuse(
                f"{place.of(folder.path)} is next to the splits and named like a class of the training split; move it "
                "into a split, or away"
            )
        _refuse_splits_below(folder, place)


def _check_classes(folder: Folder, splits: Mapping[str, Folder], place: Place) -> None:
    """Refuse a split that has images outside of class folders, or splits inside it."""
    classes = folder.subfolders
    if folder.files and classes:
        place.refuse(
            f"{place.of(folder.files[0].path)} is next to class folders ({names_of(classes)}); move it into the "
            "folder of its class, or away"
        )
    named = [name for name in classes if (meant := split_meant(name)) and meant.exactly]
    for name in named:
        # A class may have such a name (the vehicle `train`) if other splits have it as a class, too.
        if len(named) == len(classes) or sum(name in other.subfolders for other in splits.values()) < 2:
            place.refuse(
                f"{place.of(classes[name].path)} is named like a split within a split; {EXPECTED}; rename it if it is "
                "a class"
            )
    for one in classes.values():
        _refuse_splits_below(one, place)


def _refuse_splits_below(folder: Folder, place: Place) -> None:
    for inner in folder.folders():
        if split_meant(inner.name):
            place.refuse_for(
                inner,
                f"{place.of(inner.path)} is named like a split, but is not next to other splits; {EXPECTED}; rename it "
                "if it is not one",
            )
