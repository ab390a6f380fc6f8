"""Every image and label file below folders and in tar and zip archives; nothing is unpacked.

Archives are untrusted. They are only read, member by member, at offsets inside the archive; anything in them that is
not a plain file or a folder, or is named to be elsewhere, is refused. Folders are the user's own: links are followed.
"""

import os
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple, NoReturn

from alexnet_lab.data.image_kinds import (
    ARCHIVE_SUFFIXES,
    HEADER_BYTES,
    counted_suffix,
    is_image_header,
    is_image_name,
    suffix_of,
)
from alexnet_lab.data.sources.blobs import SIGNATURE, Blob, open_plain
from alexnet_lab.data.sources.zips import zip_members
from alexnet_lab.errors import UserError

KAGGLE_VAL_LABELS = "LOC_val_solution.csv"
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
DEVKIT_VAL_LABELS = "ILSVRC2012_validation_ground_truth.txt"
LABEL_FILES = {KAGGLE_VAL_LABELS, DEVKIT, DEVKIT_VAL_LABELS}

NOT_OURS = "__MACOSX"
"""The folder in which macOS keeps the attributes of the files of an archive."""
BLOCK = 512
"""Bytes; a tar consists of such blocks, and a block of zeros ends it."""


class Listed(NamedTuple):
    path: str
    """Relative to the source, with `/`; the archives on the way count as folders."""
    blob: Blob


def list_files(
    sources: Sequence[Path], left_out: Counter[str] | None = None, option: str = "source"
) -> Iterator[Listed]:
    """The images and label files below all sources, in no particular order; a source may be a label file itself.

    Files that cannot be read, such as a link that leads nowhere, are listed like others.

    Args:
        left_out: counts the other files by suffix; hidden files are not counted.
        option: the key by which the user gave the sources; messages begin with it.

    Raises:
        UserError: a source is missing, a folder cannot be listed, or an archive is damaged, compressed as a whole,
            encrypted, or has forbidden members.
    """
    left_out = Counter() if left_out is None else left_out
    try:
        for source in sources:
            yield from _list_source(source, left_out)
    except UserError as error:
        raise UserError(f"{option}: {error}") from error.__cause__


def _list_source(source: Path, left_out: Counter[str]) -> Iterator[Listed]:
    if source.is_dir():
        yield from _list_folder(source, left_out)
    elif not source.is_file():
        raise UserError(f"there is no {source}")
    elif source.name in LABEL_FILES:
        yield Listed(source.name, _whole(str(source)))
    else:
        yield from _list_archive(str(source), archive_folder(source.name), left_out)


def is_archive(name: str) -> bool:
    """Whether a file of this name is read as the folder that it would unpack to."""
    return suffix_of(name) in ARCHIVE_SUFFIXES


def _list_folder(root: Path, left_out: Counter[str]) -> Iterator[Listed]:
    entered = set()
    for folder, subfolders, names in os.walk(root, onerror=_refuse_folder, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in entered:  # a link back up
            subfolders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        subfolders[:] = [name for name in subfolders if not _is_hidden(name)]
        inside = os.path.relpath(folder, root).replace(os.sep, "/")
        for name in names:
            path = name if inside == "." else f"{inside}/{name}"
            file = os.path.join(folder, name)
            if not _is_wanted(name, partial(_whole, file), left_out):
                continue
            if is_archive(name):
                yield from _list_archive(file, archive_folder(path), left_out)
            else:
                yield Listed(path, _whole(file))


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


def _list_archive(file: str, folder: str, left_out: Counter[str]) -> Iterator[Listed]:
    """The files in a zip or tar archive on disk; its content decides which of the two it is."""
    try:
        opened = open_plain(file)
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error})") from None
    with opened:
        if opened.read(len(SIGNATURE)) == SIGNATURE or suffix_of(file) == ".zip":
            yield from _list_zip(opened, file, folder, left_out)
        else:
            yield from _list_tar(opened, _whole(file), folder, left_out, nested=False)


def _list_zip(file: BinaryIO, archive: str, folder: str, left_out: Counter[str]) -> Iterator[Listed]:
    for member in zip_members(file, archive):
        if not _is_wanted(member.path, member.blob, left_out):
            continue
        if is_archive(member.path):
            _refuse_nested(archive, f"{folder}/{member.path}")
        yield Listed(f"{folder}/{member.path}", member.blob())


def _list_tar(file: BinaryIO, archive: Blob, folder: str, left_out: Counter[str], nested: bool) -> Iterator[Listed]:
    """The files in a tar archive, and in the tar archives in it."""
    for member in tar_members(file, archive):
        path = _checked_path(member, archive.file)
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


def tar_members(file: BinaryIO, archive: Blob) -> Iterator[tarfile.TarInfo]:
    """All members of the archive at the blob's place in `file`; only the headers are read.

    Raises:
        UserError: the archive is cut off, which `tarfile` takes for its end, is no archive, or would mislead.
    """
    position, end = archive.offset, archive.offset + archive.size
    file.seek(position)
    try:
        tar = tarfile.TarFile(fileobj=file)
        while tar.offset < end and (member := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # it would keep 1.3 million of them
            # A negative size would lead back to an earlier header and never end.
            if member.size < 0 or member.offset_data + member.size > end or tar.offset <= position:
                break
            position = tar.offset
            yield member
        else:
            position = tar.offset
            file.seek(position)
            if position < end and file.read(BLOCK) == bytes(BLOCK):
                return
    except tarfile.TarError as error:
        raise UserError(
            f"{archive.file} is not a plain tar archive ({error}); decompress a compressed archive "
            f"first, for example with gunzip {archive.file}"
        ) from None
    except (OSError, MemoryError):  # the machine's trouble, not the archive's
        raise
    # `tarfile` raises nearly anything over hostile headers: ValueError, OverflowError, RecursionError, ...
    except Exception as error:
        raise UserError(
            f"{archive.file} cannot be trusted: its header at byte {position} cannot be read ({error})"
        ) from None
    raise UserError(f"{archive.file} is damaged or cut off near byte {min(position, end)}; fetch it again")


def _checked_path(member: tarfile.TarInfo, archive: str) -> str:
    """The member's path without `.` parts."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts:
        raise UserError(f"{archive} cannot be trusted: {member.name!r} would be outside of its folder")
    if not (member.isreg() or member.isdir()) or member.issparse():
        raise UserError(f"{archive} cannot be trusted: {member.name!r} is a link or a device, not a file")
    return str(path)


def _is_wanted(path: str, blob: Callable[[], Blob], left_out: Counter[str]) -> bool:
    """Whether it is an image, a label file or an archive. Others are counted, hidden ones are not.

    A file is opened only if its name does not show what it is.
    """
    *folders, name = path.split("/")
    if any(map(_is_hidden, folders)) or name.startswith("."):
        return False
    if name in LABEL_FILES or is_archive(name):
        return True
    known = is_image_name(name)
    if known is None:
        with suppress(OSError):
            known = is_image_header(blob().start(HEADER_BYTES))
    if not known:
        left_out[counted_suffix(name)] += 1
    return bool(known)


def _is_hidden(folder: str) -> bool:
    """Such as ".ipynb_checkpoints", Jupyter's copies."""
    return folder.startswith(".") or folder == NOT_OURS


def archive_folder(path: str) -> str:
    """An archive is listed as a folder of its own name."""
    return str(PurePosixPath(path).with_suffix(""))
