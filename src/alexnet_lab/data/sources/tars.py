"""The members of a tar archive, which is untrusted: only headers are read."""

import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import BinaryIO

from alexnet_lab.data.sources.blobs import Blob
from alexnet_lab.errors import UserError

BLOCK = 512
"""Size of a block in bytes; a tar consists of blocks, and a block of zeros ends it."""


def tar_members(file: BinaryIO, archive: Blob) -> Iterator[tarfile.TarInfo]:
    """All members of the archive at the blob's position; only the headers are read.

    Raises:
        UserError: the archive is cut off (which `tarfile` ignores), is not an archive, or cannot be trusted.
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
    except (OSError, MemoryError):  # a problem of this machine, not of the archive
        raise
    # `tarfile` raises almost any exception for hostile headers: ValueError, OverflowError, RecursionError, ...
    except Exception as error:
        raise UserError(
            f"{archive.file} cannot be trusted: its header at byte {position} cannot be read ({error})"
        ) from None
    raise UserError(f"{archive.file} is damaged or cut off near byte {min(position, end)}; fetch it again")


def checked_path(member: tarfile.TarInfo, archive: str) -> str:
    """The member's path without `.` parts."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts:
        raise UserError(f"{archive} cannot be trusted: {member.name!r} would be outside of its folder")
    if not (member.isreg() or member.isdir()) or member.issparse():
        raise UserError(f"{archive} cannot be trusted: {member.name!r} is a link or a device, not a file")
    return str(path)
