"""The bytes of a file on disk or of a member of an archive. Nothing is unpacked to disk."""

import os
import stat
import struct
import zlib
from typing import BinaryIO, NamedTuple

LOCAL_HEADER = struct.Struct("<4s22xHH")
"""Header of a zip member: signature, ..., length of its name and of its extra field; name, extra and data follow."""
SIGNATURE = b"PK\x03\x04"


class Zipped(NamedTuple):
    """How a member of a zip archive is stored, according to the archive's directory."""

    deflated: bool
    size: int
    """Size in the archive, in bytes."""
    crc: int
    """CRC-32 of the unpacked bytes."""


class Blob(NamedTuple):
    """The location of a file's bytes; safe for any number of threads and processes."""

    file: str
    """The file on disk that contains them."""
    offset: int
    """Offset of the first byte; for a member of a zip, of its local header."""
    size: int
    """Unpacked size in bytes."""
    zipped: Zipped | None = None
    """None unless it is a member of a zip archive."""

    def read(self) -> bytes:
        """All bytes. OSError if the file is missing, not a regular file, shorter than before, or damaged."""
        with open_plain(self.file) as file:
            if self.zipped is None:
                data = os.pread(file.fileno(), self.size, self.offset)
                if len(data) != self.size:
                    raise OSError(f"{self.file} ends before byte {self.offset + self.size}")
                return data
            data = _unpacked(file, self, self.zipped, self.size + 1)  # one byte more: a longer member is damaged, too
        if len(data) != self.size or zlib.crc32(data) != self.zipped.crc:
            raise OSError(f"{self.file} is damaged: the file at byte {self.offset} does not match its size or checksum")
        return data

    def start(self, length: int) -> bytes:
        """The first `length` bytes, or all if there are fewer; OSError like `read`."""
        length = min(length, self.size)
        with open_plain(self.file) as file:
            if self.zipped is None:
                return os.pread(file.fileno(), length, self.offset)
            return _unpacked(file, self, self.zipped, length)


def reason_of(error: Exception) -> str:
    """The reason why a file cannot be read, without the path that system errors contain."""
    return (isinstance(error, OSError) and error.strerror) or str(error)


def open_plain(file: str) -> BinaryIO:
    """OSError unless it is a regular file: reading a FIFO would block forever."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{file} is not a plain file")
    return os.fdopen(descriptor, "rb")


def _unpacked(file: BinaryIO, blob: Blob, zipped: Zipped, limit: int) -> bytes:
    """At most `limit` unpacked bytes of a member, whose headers are not trusted."""
    header = os.pread(file.fileno(), LOCAL_HEADER.size, blob.offset)
    if len(header) < LOCAL_HEADER.size or not header.startswith(SIGNATURE):
        raise OSError(f"{blob.file} is damaged: there is no member at byte {blob.offset}")
    _, name, extra = LOCAL_HEADER.unpack(header)
    # Deflate adds at most 5 bytes per 16 KB; more is not read into memory.
    stored = min(zipped.size, limit + limit // 1024 + 1024)
    data = os.pread(file.fileno(), stored, blob.offset + LOCAL_HEADER.size + name + extra)
    if not zipped.deflated:
        return data[:limit]
    try:
        return zlib.decompressobj(wbits=-zlib.MAX_WBITS).decompress(data, limit) if limit else b""
    except zlib.error as error:
        raise OSError(f"{blob.file} is damaged at byte {blob.offset}: {error}") from None
