"""Writes files atomically or exclusively, on any file system.

NFS, FUSE, SMB and exFAT lack some of hard links, fsync, chmod and renaming over a file; nothing here needs them.
Imports nothing heavy.
"""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from alexnet_lab.locks import ASIDE, MARKER, UNFINISHED, beside, hold_marker

NO_SYNC = {
    getattr(errno, name)
    for name in ("EINVAL", "ENOSYS", "ENOTSUP", "EOPNOTSUPP", "ENOTTY", "EPERM", "EACCES", "EBADF", "EISDIR", "EROFS")
    if hasattr(errno, name)
}
"""Errors of fsync that mean that the file system does not support it; all others mean lost data."""
CREATE_SECONDS = 5.0
"""How long `create` waits for another process that creates the same file."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file atomically: the block writes to a new file, which is renamed to `path` at the end of the block.

    Readers see either the old or the new content, also after a power failure. If the block raises, the new file is
    removed. A symbolic link is kept; the file that it points to is replaced.
    """
    path = path.resolve() if path.is_symlink() else path
    unfinished = beside(path, UNFINISHED)
    try:
        yield unfinished
        with unfinished.open("rb+") as file:
            sync(file.fileno())
        move_over(unfinished, path)
    except BaseException:
        with suppress(OSError):
            unfinished.unlink()
        raise
    sync_folder(path.parent)


def write(path: Path, content: str | bytes) -> None:
    """Replace the content of `path` atomically, see `replacing`; text is written as UTF-8."""
    with replacing(path) as unfinished:
        unfinished.write_bytes(content if isinstance(content, bytes) else encoded(content))


def encoded(text: str) -> bytes:
    """UTF-8; file names that are not valid UTF-8 keep their original bytes."""
    return text.encode("utf-8", "surrogateescape")


def create(path: Path, content: str) -> None:
    """Write a file that must not exist yet, atomically; if several processes try, only one creates it.

    Raises:
        FileExistsError: it exists, or another process has just created it.
        UserError: another process has been creating it for `CREATE_SECONDS`.
    """
    with hold_marker(path.with_name(f".{path.name}{MARKER}"), str(path), CREATE_SECONDS):
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        write(path, content)


def reason_of(error: OSError) -> str:
    """The reason why the system could not create a file or a folder."""
    return "not a folder" if error.errno in (errno.EEXIST, errno.ENOTDIR) else error.strerror or str(error)


def try_to_write(path: Path) -> None:
    """Create and remove a file in the folder of `path`; raises OSError if that is not possible."""
    path = path.resolve() if path.is_symlink() else path
    probe = beside(path, UNFINISHED)
    try:
        probe.open("xb").close()
    finally:
        with suppress(OSError):
            probe.unlink()


def print_written(path: Path) -> None:
    """Print the path of a file that the user has asked for."""
    print(f"written: {path.absolute()}")


def sync(descriptor: int) -> None:
    """Flush a file to the disk if the file system supports it."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, after files were created or renamed."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def rename_folder(source: Path, target: Path) -> None:
    """Rename a finished folder to `target`, which does not exist or is an empty folder."""
    with suppress(FileNotFoundError):
        target.rmdir()  # some file systems cannot rename over an existing folder
    os.rename(source, target)
    sync_folder(target.parent)


def tidy(folder: Path) -> None:
    """Remove unfinished files of killed processes from `folder`; only the process that holds its lock may do so."""
    for path in folder.glob(f"*{UNFINISHED}"):
        with suppress(OSError):
            path.unlink()
    for path in folder.glob(f".*{ASIDE}"):  # left by a kill during `move_over`
        original = folder / path.name[1:].rsplit(".", 2)[0]
        with suppress(OSError):
            path.unlink() if original.exists() else os.rename(path, original)


def copy_tree(source: Path, target: Path, ignore: Callable[[Any, list[str]], set[str]] | None = None) -> None:
    """Copy a folder to a new one, with times and permissions if the file system supports them."""
    target.mkdir(parents=True, exist_ok=True)
    names = sorted(path.name for path in source.iterdir())
    for name in sorted({*names} - (ignore(source, names) if ignore else set())):
        inside = source / name
        if inside.is_dir():
            copy_tree(inside, target / name, ignore)
        else:
            shutil.copyfile(inside, target / name)
            with suppress(OSError):
                shutil.copystat(inside, target / name)


def move_over(source: Path, target: Path) -> None:
    """Rename a file to `target`, replacing its content; within one folder, this needs no disk space."""
    try:
        os.replace(source, target)
    except OSError:
        if not target.is_file():
            raise
        # Some file systems cannot rename over an existing file.
        aside = beside(target, ASIDE)
        os.rename(target, aside)
        try:
            os.rename(source, target)
        except OSError:
            os.rename(aside, target)
            raise
        aside.unlink()
