"""Writing files on any file system: whole, or exclusively.

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

ROOT = Path(__file__).resolve().parents[2]
"""The project's folder, which has `conf` and `docs` in it."""

NO_SYNC = {
    getattr(errno, name)
    for name in ("EINVAL", "ENOSYS", "ENOTSUP", "EOPNOTSUPP", "ENOTTY", "EPERM", "EACCES", "EBADF", "EISDIR", "EROFS")
    if hasattr(errno, name)
}
"""Errors of fsync where a file system or a folder does not offer it; all others mean lost data."""
CREATE_SECONDS = 5.0
"""How long `create` waits for another process that creates the same file."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file whole: the block gets the path of a new file, which is renamed to `path` when the block ends.

    Readers see the old content or the new content at any time, also after a power failure. When the block raises, the
    new file is removed. A symbolic link stays, and the file that it names is replaced.
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
    """Replace the content of `path` at once, see `replacing`; text is written as UTF-8."""
    with replacing(path) as unfinished:
        unfinished.write_bytes(content if isinstance(content, bytes) else encoded(content))


def encoded(text: str) -> bytes:
    """UTF-8, and the original bytes of file names that are not valid UTF-8."""
    return text.encode("utf-8", "surrogateescape")


def create(path: Path, content: str) -> None:
    """Write a file that must not exist yet; of several processes, one creates it. It appears whole.

    Raises:
        FileExistsError: it exists, or another process has just created it.
        UserError: another process has been creating it for `CREATE_SECONDS`.
    """
    with hold_marker(path.with_name(f".{path.name}{MARKER}"), str(path), CREATE_SECONDS):
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        write(path, content)


def reason_of(error: OSError) -> str:
    """Why the system refused to make a file or a folder."""
    return "not a folder" if error.errno in (errno.EEXIST, errno.ENOTDIR) else error.strerror or str(error)


def try_to_write(path: Path) -> None:
    """Create a file in the folder of `path` and remove it; OSError where that folder takes none."""
    path = path.resolve() if path.is_symlink() else path
    probe = beside(path, UNFINISHED)
    try:
        probe.open("xb").close()
    finally:
        with suppress(OSError):
            probe.unlink()


def print_written(path: Path) -> None:
    """Tell the user where a file is that they asked for."""
    print(f"written: {path.absolute()}")


def sync(descriptor: int) -> None:
    """Flush a file to the disk, where the file system offers that."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk: those of files that were created or renamed."""
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
        target.rmdir()  # some file systems rename to a free name only
    os.rename(source, target)
    sync_folder(target.parent)


def tidy(folder: Path) -> None:
    """Remove what killed processes were writing into `folder`; only the process that holds its lock may do so."""
    for path in folder.glob(f"*{UNFINISHED}"):
        with suppress(OSError):
            path.unlink()
    for path in folder.glob(f".*{ASIDE}"):  # of `move_over`, killed in the middle
        original = folder / path.name[1:].rsplit(".", 2)[0]
        with suppress(OSError):
            path.unlink() if original.exists() else os.rename(path, original)


def copy_tree(source: Path, target: Path, ignore: Callable[[Any, list[str]], set[str]] | None = None) -> None:
    """Copy a folder to a new one, with times and permissions where the file system takes them."""
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
    """Rename a file to `target`, whose old content is gone then; in the same folder, it needs no space on the disk."""
    try:
        os.replace(source, target)
    except OSError:
        if not target.is_file():
            raise
        # Some file systems rename to a free name only.
        aside = beside(target, ASIDE)
        os.rename(target, aside)
        try:
            os.rename(source, target)
        except OSError:
            os.rename(aside, target)
            raise
        aside.unlink()
