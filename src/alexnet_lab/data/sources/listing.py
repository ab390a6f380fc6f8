"""Lists every image and label file in folders, tar and zip archives; nothing is unpacked.

Archives are untrusted. They are only read, member by member, at offsets inside the archive; anything in them that is
not a plain file or a folder, or is named to be elsewhere, is refused. Folders are the user's own: links are followed.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple, NoReturn

from alexnet_lab.data.image_kinds import (
    ARCHIVE_SUFFIXES,
    HEADER_BYTES,
    LeftOut,
    counted_suffix,
    is_image_header,
    is_image_name,
    suffix_of,
)
from alexnet_lab.data.sources.blobs import SIGNATURE, Blob, open_plain
from alexnet_lab.data.sources.tars import checked_path, tar_members
from alexnet_lab.data.sources.zips import zip_members
from alexnet_lab.errors import UserError

KAGGLE_VAL_LABELS = "LOC_val_solution.csv"
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
DEVKIT_VAL_LABELS = "ILSVRC2012_validation_ground_truth.txt"
LABEL_FILES = {KAGGLE_VAL_LABELS, DEVKIT, DEVKIT_VAL_LABELS}

OF_A_SYSTEM = {
    *("__macosx", "$recycle.bin", "recycler", "system volume information", "found.000"),
    *("lost+found", "@eadir", "#recycle", "@recycle", "#snapshot", "@snapshot"),
}
"""Folders of operating systems and network storage, in lower case; they contain thumbnails or deleted files."""


class Listed(NamedTuple):
    path: str
    """Path relative to the source, with `/`; archives count as folders."""
    blob: Blob


def list_files(sources: Sequence[Path], left_out: LeftOut | None = None, option: str = "source") -> Iterator[Listed]:
    """The images and label files below all sources, in no particular order; a source can itself be a label file.

    Files that cannot be read, such as a link that leads nowhere, are listed like others.

    Args:
        left_out: counts the other files by suffix; hidden files are not counted.
        option: the key by which the user gave the sources; messages begin with it.

    Raises:
        UserError: a source is missing, a folder cannot be listed, or an archive is damaged, compressed as a whole,
            encrypted, or has forbidden members.
    """
    left_out = LeftOut() if left_out is None else left_out
    try:
        for source in sources:
            yield from _list_source(source, left_out)
    except UserError as error:
        raise UserError(f"{option}: {error}") from error.__cause__


def _list_source(source: Path, left_out: LeftOut) -> Iterator[Listed]:
    if source.is_dir():
        yield from _list_folder(source, left_out)
    elif not source.is_file():
        raise UserError(f"there is no {source}")
    elif source.name in LABEL_FILES:
        yield Listed(source.name, _whole(str(source)))
    else:
        yield from _list_archive(str(source), archive_folder(source.name), left_out)


def is_archive(name: str) -> bool:
    """Whether a file of this name is an archive, which is read like a folder."""
    return suffix_of(name) in ARCHIVE_SUFFIXES


def _list_folder(root: Path, left_out: LeftOut) -> Iterator[Listed]:
    pending: list[tuple[str, str, tuple[str, ...]]] = [(str(root), "", (os.path.realpath(root),))]
    while pending:
        folder, inside, entered = pending.pop()
        try:
            entries = list(os.scandir(folder))
        except OSError as error:
            _refuse_folder(error)
        for entry in entries:
            path, file = inside + entry.name, entry.path
            if _is_folder(entry):
                if is_ignored(entry.name):
                    continue
                way = _entered(entry, entered)
                if way is None:
                    left_out.loops.append(file)
                else:
                    pending.append((file, f"{path}/", way))
            elif not _is_wanted(entry.name, partial(_whole, file), left_out):
                continue
            elif is_archive(entry.name):
                yield from _list_archive(file, archive_folder(path), left_out)
            else:
                yield Listed(path, _whole(file))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # such as a link to itself
        return False


def _entered(entry: os.DirEntry[str], entered: tuple[str, ...]) -> tuple[str, ...] | None:
    """The real paths of a folder and its parents, one more per link; None for a link to one of them."""
    if not entry.is_symlink():
        return (*entered[:-1], os.path.join(entered[-1], entry.name))
    target = os.path.realpath(entry.path)
    return None if any(Path(place).is_relative_to(target) for place in entered) else (*entered, target)


def _refuse_folder(error: OSError) -> NoReturn:
    raise UserError(
        f"{error.filename} cannot be listed ({error.strerror}); make it readable, or choose folders without it"
    )


def _whole(file: str) -> Blob:
    """All of a file; empty if it cannot be read, which `Blob.read` reports later."""
    try:
        return Blob(file, 0, os.stat(file).st_size)
    except OSError:
        return Blob(file, 0, 0)


def _list_archive(file: str, folder: str, left_out: LeftOut) -> Iterator[Listed]:
    """The files in a zip or tar archive on disk; its content determines the type."""
    try:
        opened = open_plain(file)
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error})") from None
    with opened:
        if opened.read(len(SIGNATURE)) == SIGNATURE or suffix_of(file) == ".zip":
            yield from _list_zip(opened, file, folder, left_out)
        else:
            yield from _list_tar(opened, _whole(file), folder, left_out, nested=False)


def _list_zip(file: BinaryIO, archive: str, folder: str, left_out: LeftOut) -> Iterator[Listed]:
    for member in zip_members(file, archive):
        if not _is_wanted(member.path, member.blob, left_out):
            continue
        if is_archive(member.path):
            _refuse_nested(archive, f"{folder}/{member.path}")
        yield Listed(f"{folder}/{member.path}", member.blob())


def _list_tar(file: BinaryIO, archive: Blob, folder: str, left_out: LeftOut, nested: bool) -> Iterator[Listed]:
    """The files in a tar archive, including nested tar archives."""
    for member in tar_members(file, archive):
        path = checked_path(member, archive.file)
        blob = partial(Blob, archive.file, member.offset_data, member.size)
        if not member.isreg() or not _is_wanted(path, blob, left_out):
            continue
        if not is_archive(path):
            yield Listed(f"{folder}/{path}", blob())
        elif nested or suffix_of(path) == ".zip":
            _refuse_nested(archive.file, f"{folder}/{path}")
        else:
            with open_plain(archive.file) as again:
                yield from _list_tar(again, blob(), f"{folder}/{archive_folder(path)}", left_out, nested=True)


def _refuse_nested(archive: str, path: str) -> NoReturn:
    raise UserError(
        f"{archive} contains an archive in an archive ({path}); only a tar in a tar is read, down to two levels: "
        "unpack the outer archive and give the folder"
    )


def _is_wanted(path: str, blob: Callable[[], Blob], left_out: LeftOut) -> bool:
    """Whether the file is an image, a label file or an archive. Other files are counted, except hidden ones.

    A file is opened only if its name does not determine its type.
    """
    *folders, name = path.split("/")
    if any(map(is_ignored, folders)) or name.startswith("."):
        return False
    if name in LABEL_FILES or is_archive(name):
        return True
    known = is_image_name(name)
    if known is False:
        left_out.by_name[counted_suffix(name)] += 1
    elif known is None:
        whole = blob()
        try:
            known = is_image_header(whole.start(HEADER_BYTES))
        except OSError:
            if os.path.islink(whole.file) and not os.path.exists(whole.file):
                left_out.broken_links.append(whole.file)
                return False
        if not known:
            left_out.by_content[counted_suffix(name)] += 1
    return bool(known)


def is_ignored(folder: str) -> bool:
    """Whether it is hidden, such as ".ipynb_checkpoints", Jupyter's copies, or made by an operating system."""
    return folder.startswith(".") or folder.lower() in OF_A_SYSTEM


def archive_folder(path: str) -> str:
    """List an archive as a folder of the same name."""
    return str(PurePosixPath(path).with_suffix(""))
