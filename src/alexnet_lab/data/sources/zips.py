"""The members of a zip archive, from its directory at the end; their data are read later, by `Blob`."""

import stat
import zipfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import BinaryIO, NamedTuple

from alexnet_lab.data.sources.blobs import Blob, Zipped
from alexnet_lab.errors import UserError

ENCRYPTED = 0x1
MS_DOS, UNIX = 0, 3
"""Operating systems that created a zip."""
METHODS = {zipfile.ZIP_STORED: False, zipfile.ZIP_DEFLATED: True}
"""Whether a member is deflated, by its method."""
RARE_METHODS = {9: "deflate64", 12: "bzip2", 14: "lzma", 93: "zstandard", 95: "xz"}


class Member(NamedTuple):
    path: str
    """In the archive, with `/`, without `.` parts."""
    info: zipfile.ZipInfo
    archive: str

    def blob(self) -> Blob:
        """The location of its bytes.

        Raises:
            UserError: it is encrypted, or compressed by an unsupported method.
        """
        info = self.info
        if info.flag_bits & ENCRYPTED:
            raise UserError(
                f"{self.archive} is encrypted ({self.path}); unpack it with its password and give the folder"
            )
        if info.compress_type not in METHODS:
            name = RARE_METHODS.get(info.compress_type, info.compress_type)
            raise UserError(
                f"{self.archive} is packed by the method {name} ({self.path}); only stored and deflated "
                "files can be read from an archive; unpack it and give the folder"
            )
        packed = Zipped(METHODS[info.compress_type], info.compress_size, info.CRC)
        return Blob(self.archive, info.header_offset, info.file_size, packed)


def zip_members(file: BinaryIO, archive: str) -> Iterator[Member]:
    """The files in an open zip `file`, named `archive` on disk; only its directory is read.

    Raises:
        UserError: it is damaged or not a zip, or a member is a link or has a path outside the archive.
    """
    try:
        with zipfile.ZipFile(file) as opened:
            infos = opened.infolist()
        if any(info.header_offset < 0 for info in infos):
            raise zipfile.BadZipFile("its start is missing")
    except (OSError, MemoryError):  # a problem of this machine, not of the archive
        raise
    # `zipfile` raises BadZipFile, NotImplementedError, ValueError, struct.error, ... for hostile or split archives.
    except Exception as error:
        raise UserError(
            f"{archive} is not a whole zip archive ({error}); it is damaged, cut off or one of several parts: "
            "fetch it again, or unpack it and give the folder"
        ) from None
    for info in infos:
        if not info.filename.endswith(("/", "\\")):
            yield Member(_checked_path(info, archive), info, archive)


def _checked_path(info: zipfile.ZipInfo, archive: str) -> str:
    name = info.filename
    if info.create_system == MS_DOS and "/" not in name:
        name = name.replace("\\", "/")  # written by older Windows programs
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise UserError(f"{archive} cannot be trusted: {info.filename!r} would be outside of its folder")
    kind = stat.S_IFMT(info.external_attr >> 16) if info.create_system == UNIX else 0
    if kind not in (0, stat.S_IFREG):
        raise UserError(f"{archive} cannot be trusted: {info.filename!r} is a link or a device, not a file")
    return str(path)
