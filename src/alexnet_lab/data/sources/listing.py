"""Every file of interest below folders and in tar archives, read from where it lies: nothing is unpacked.

Archives are untrusted. They are only read, member by member, at offsets inside the archive; anything in them that is
not a plain file or a folder, or is named to lie elsewhere, is refused. Folders are the user's own: links are followed.
"""

import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from alexnet_lab.errors import UserError

IMAGE_SUFFIXES = {".jpeg", ".jpg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
KAGGLE_VAL_LABELS = "LOC_val_solution.csv"
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
DEVKIT_VAL_LABELS = "ILSVRC2012_validation_ground_truth.txt"
LABEL_FILES = {KAGGLE_VAL_LABELS, DEVKIT, DEVKIT_VAL_LABELS}

TAR_FOLDERS = {"ILSVRC2012_img_train": "train", "ILSVRC2012_img_val": "val"}
"""A tar is listed as a folder of its own name; these two have a folder's meaning."""
BLOCK = 512
"""Bytes; a tar consists of such blocks, and a block of zeros ends it."""


class Blob(NamedTuple):
    """A file's bytes, where they lie: a whole file on disk, or a part of an archive."""

    file: str
    offset: int
    size: int

    def read(self) -> bytes:
        """OSError when the file is gone or has become shorter."""
        with open(self.file, "rb", buffering=0) as file:
            data = os.pread(file.fileno(), self.size, self.offset)
        if len(data) != self.size:
            raise OSError(f"{self.file} ends before byte {self.offset + self.size}")
        return data


class Listed(NamedTuple):
    path: str
    """Relative to the source, with `/`; the tars on the way count as folders."""
    blob: Blob


def list_files(sources: Sequence[Path]) -> Iterator[Listed]:
    """The images and label files below all sources, in no particular order.

    Raises:
        UserError: a source is missing, or an archive is damaged, compressed or has forbidden members.
    """
    for source in sources:
        if source.is_dir():
            yield from _list_folder(source)
        elif source.is_file():
            yield from _list_tar(Blob(str(source), 0, source.stat().st_size), _tar_folder(source.name), nested=False)
        else:
            raise UserError(f"source: there is no {source}")


def _list_folder(root: Path) -> Iterator[Listed]:
    entered = set()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in entered:  # a link back up
            subfolders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        inside = os.path.relpath(folder, root).replace(os.sep, "/")
        for name in names:
            path = name if inside == "." else f"{inside}/{name}"
            if _is_wanted(name):
                file = os.path.join(folder, name)
                blob = Blob(file, 0, os.stat(file).st_size)
                if _is_tar(name):
                    yield from _list_tar(blob, _tar_folder(path), nested=False)
                else:
                    yield Listed(path, blob)


def _list_tar(archive: Blob, folder: str, nested: bool) -> Iterator[Listed]:
    """The files in an archive, and in the archives in it."""
    with open(archive.file, "rb") as file:
        file.seek(archive.offset)
        try:
            for member in _members(file, archive):
                path = _checked_path(member, archive.file)
                blob = Blob(archive.file, member.offset_data, member.size)
                if not member.isreg() or not _is_wanted(path):
                    continue
                if not _is_tar(path):
                    yield Listed(f"{folder}/{path}", blob)
                elif not nested:
                    yield from _list_tar(blob, f"{folder}/{_tar_folder(path)}", nested=True)
        except tarfile.TarError as error:
            raise UserError(
                f"source: {archive.file} is not a plain tar archive ({error}); a compressed one must be decompressed "
                "first, because images are read from its middle"
            ) from None


def _members(file: BinaryIO, archive: Blob) -> Iterator[tarfile.TarInfo]:
    """All members; a UserError where the archive is cut off, which `tarfile` takes for its end."""
    tar = tarfile.TarFile(fileobj=file)
    end = archive.offset + archive.size
    while tar.offset < end and (member := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined]  # it would keep 1.3 million of them
        if member.offset_data + member.size > end:
            break
        yield member
    else:
        closing = os.pread(file.fileno(), BLOCK, tar.offset)
        if tar.offset < end and closing == bytes(BLOCK):
            return
    raise UserError(f"source: {archive.file} is damaged or cut off near byte {min(tar.offset, end)}; fetch it again")


def _checked_path(member: tarfile.TarInfo, archive: str) -> str:
    """The member's path without `.` parts."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts:
        raise UserError(f"source: {archive} is not to be trusted: {member.name!r} would lie outside of its folder")
    if not (member.isreg() or member.isdir()) or member.issparse():
        raise UserError(
            f"source: {archive} is not to be trusted: {member.name!r} is a link, a device or the like, and not a file"
        )
    return str(path)


def _is_wanted(path: str) -> bool:
    name = path.rpartition("/")[2]
    # "._name" is how macOS keeps a file's attributes.
    return name in LABEL_FILES or (Path(name).suffix.lower() in {".tar", *IMAGE_SUFFIXES} and not name.startswith("."))


def _is_tar(path: str) -> bool:
    return path.lower().endswith(".tar")


def _tar_folder(path: str) -> str:
    stem = PurePosixPath(path).with_suffix("")
    return str(stem.with_name(TAR_FOLDERS.get(stem.name, stem.name)))
