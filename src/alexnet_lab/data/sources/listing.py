"""Every file of interest below folders and in tar archives, read from where it lies: nothing is unpacked.

Archives are untrusted. They are only read, member by member, at offsets inside the archive; anything in them that is
not a plain file or a folder, or is named to lie elsewhere, is refused. Folders are the user's own: links are followed.
"""

import os
import stat
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple, NoReturn

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
        """OSError when the file is gone, is no plain file, or has become shorter."""
        with _open_plain(self.file) as file:
            data = os.pread(file.fileno(), self.size, self.offset)
        if len(data) != self.size:
            raise OSError(f"{self.file} ends before byte {self.offset + self.size}")
        return data


class Listed(NamedTuple):
    path: str
    """Relative to the source, with `/`; the tars on the way count as folders."""
    blob: Blob


def list_files(sources: Sequence[Path]) -> Iterator[Listed]:
    """The images and label files below all sources, in no particular order; a source may be a label file itself.

    Files that cannot be read, such as a link that leads nowhere, are listed like others.

    Raises:
        UserError: a source is missing, a folder cannot be listed, or an archive is damaged, compressed or has
            forbidden members.
    """
    for source in sources:
        if source.is_dir():
            yield from _list_folder(source)
        elif not source.is_file():
            raise UserError(f"source: there is no {source}")
        elif source.name in LABEL_FILES:
            yield Listed(source.name, _whole(str(source)))
        else:
            yield from _list_tar(_whole(str(source)), _tar_folder(source.name), nested=False)


def _list_folder(root: Path) -> Iterator[Listed]:
    entered = set()
    for folder, subfolders, names in os.walk(root, onerror=_refuse_folder, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in entered:  # a link back up
            subfolders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        inside = os.path.relpath(folder, root).replace(os.sep, "/")
        for name in names:
            path = name if inside == "." else f"{inside}/{name}"
            if _is_wanted(name):
                blob = _whole(os.path.join(folder, name))
                if _is_tar(name):
                    yield from _list_tar(blob, _tar_folder(path), nested=False)
                else:
                    yield Listed(path, blob)


def _refuse_folder(error: OSError) -> NoReturn:
    raise UserError(
        f"source: {error.filename} cannot be listed ({error.strerror}); make it readable, or name sources without it"
    )


def _whole(file: str) -> Blob:
    """All of a file; empty for one that cannot be read, which `Blob.read` will say."""
    try:
        return Blob(file, 0, os.stat(file).st_size)
    except OSError:
        return Blob(file, 0, 0)


def _open_plain(file: str) -> BinaryIO:
    """OSError unless it is a plain file: one would wait for ever for what comes out of a FIFO."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{file} is not a plain file")
    return os.fdopen(descriptor, "rb")


def _list_tar(archive: Blob, folder: str, nested: bool) -> Iterator[Listed]:
    """The files in an archive, and in the archives in it."""
    try:
        file = _open_plain(archive.file)
    except OSError as error:
        raise UserError(f"source: {archive.file} cannot be read ({error})") from None
    with file:
        for member in tar_members(file, archive):
            path = _checked_path(member, archive.file)
            blob = Blob(archive.file, member.offset_data, member.size)
            if not member.isreg() or not _is_wanted(path):
                continue
            if not _is_tar(path):
                yield Listed(f"{folder}/{path}", blob)
            elif nested:
                raise UserError(
                    f"source: {archive.file} has a tar in a tar in a tar ({folder}/{path}); only two levels are read, "
                    "unpack the outermost"
                )
            else:
                yield from _list_tar(blob, f"{folder}/{_tar_folder(path)}", nested=True)


def tar_members(file: BinaryIO, archive: Blob) -> Iterator[tarfile.TarInfo]:
    """All members of the archive that lies in `file` at the blob's place; only the headers are read.

    Raises:
        UserError: the archive is cut off, which `tarfile` takes for its end, is no archive, or would mislead.
    """
    position, end = archive.offset, archive.offset + archive.size
    file.seek(position)
    try:
        tar = tarfile.TarFile(fileobj=file)
        while tar.offset < end and (member := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # it would keep 1.3 million of them
            # A negative size leads back to an earlier header, for ever.
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
            f"source: {archive.file} is not a plain tar archive ({error}); a compressed one must be decompressed "
            f"first, as by gunzip {archive.file}, because images are read from its middle"
        ) from None
    except (OSError, MemoryError):  # the machine's trouble, not the archive's
        raise
    # `tarfile` raises nearly anything over hostile headers: ValueError, OverflowError, RecursionError, ...
    except Exception as error:
        raise UserError(
            f"source: {archive.file} is not to be trusted: its header at byte {position} cannot be read ({error})"
        ) from None
    raise UserError(f"source: {archive.file} is damaged or cut off near byte {min(position, end)}; fetch it again")


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
    """Nothing hidden: "._name" is how macOS keeps a file's attributes, ".ipynb_checkpoints" are Jupyter's copies."""
    *folders, name = path.split("/")
    if any(part.startswith(".") for part in folders):
        return False
    return name in LABEL_FILES or (Path(name).suffix.lower() in {".tar", *IMAGE_SUFFIXES} and not name.startswith("."))


def _is_tar(path: str) -> bool:
    return path.lower().endswith(".tar")


def _tar_folder(path: str) -> str:
    stem = PurePosixPath(path).with_suffix("")
    return str(stem.with_name(TAR_FOLDERS.get(stem.name, stem.name)))
