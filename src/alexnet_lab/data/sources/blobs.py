"""The bytes of a file, wherever they are: a file of its own, or a member of an archive. Nothing is unpacked to disk."""

import os
import stat
import struct
import zlib
from typing import BinaryIO, NamedTuple

LOCAL_HEADER = struct.Struct("<4s22xHH")
"""Of a zip's member: signature, ..., bytes of its name, bytes of its extra field. Name, extra and data follow."""
SIGNATURE = b"PK\x03\x04"


class Zipped(NamedTuple):
    """How a member of a zip archive is stored, as the archive's directory states it."""

    deflated: bool
    size: int
    """Bytes in the archive."""
    crc: int
    """CRC-32 of the unpacked bytes."""


class Blob(NamedTuple):
    """A file's bytes; any number of threads and processes may read it."""

    file: str
    """The file on disk that holds them."""
    offset: int
    """Where they begin in it; for a member of a zip, where its local header begins."""
    size: int
    """Bytes, unpacked."""
    zipped: Zipped | None = None
    """None unless it is a member of a zip archive."""

    def read(self) -> bytes:
        """All bytes. OSError when the file is gone, is not a plain file, is shorter than it was, or is damaged."""
        with open_plain(self.file) as file:
            if self.zipped is None:
                data = os.pread(file.fileno(), self.size, self.offset)
                if len(data) != self.size:
                    raise OSError(f"{self.file} ends before byte {self.offset + self.size}")
                return data
            data = _unpacked(file, self, self.zipped, self.size + 1)  # one more: a longer one is damaged, too
        if len(data) != self.size or zlib.crc32(data) != self.zipped.crc:
            raise OSError(f"{self.file} is damaged: the file at byte {self.offset} does not match its size or checksum")
        return data

    def start(self, length: int) -> bytes:
        """The first `length` bytes, or all where there are fewer; OSError like `read`."""
        length = min(length, self.size)
        with open_plain(self.file) as file:
            if self.zipped is None:
                return os.pread(file.fileno(), length, self.offset)
            return _unpacked(file, self, self.zipped, length)


def reason_of(error: Exception) -> str:
    """Why a file cannot be read, without the path that the system's own errors repeat."""
    return (isinstance(error, OSError) and error.strerror) or str(error)


def open_plain(file: str) -> BinaryIO:
    """OSError unless it is a plain file: reading a FIFO would wait forever."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{file} is not a plain file")
    return os.fdopen(descriptor, "rb")


def _unpacked(file: BinaryIO, blob: Blob, zipped: Zipped, limit: int) -> bytes:
    """At most `limit` unpacked bytes of a member; its headers are not trusted."""
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
