"""Copies or decodes the needed window of each stored image into one tensor.

M stored images, N samples, C channels, H W stored size, h w window size.
"""

import math
import mmap
import os
import threading
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alexnet_lab import machine
from alexnet_lab.errors import UserError


class WindowedImages(Protocol):
    """Images that are read one at a time, by several threads at once."""

    dtype: np.dtype[np.uint8]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """[M, C, H, W]"""

    def window(self, row: int, top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
        """[height, width, C] of image `row`; valid until the next call of the same thread."""


class PixelFile:
    """Pixels [M, H, W, C] in a file, starting at `offset`; read by several threads at once.

    A file of at most half of the memory is memory-mapped, and a batch is one copy without the GIL: three times as fast
    as reading it image by image. A larger file is read into a reused buffer, because each page fault of a file that
    does not stay in memory reads a single page or, on some systems, megabytes around it.

    Where the disk fails, or another program truncates a mapped file during a copy, the system kills the process. Before
    each copy, the file's size is checked.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, path: Path, offset: int, shape: tuple[int, int, int, int]) -> None:
        self._path = path
        self._file = path.open("rb", buffering=0)
        weakref.finalize(self, self._file.close)
        self._offset = offset
        self._shape = shape
        self._read = threading.local()
        self._pixels: Tensor | None = None
        if shape[0] and (size := offset + math.prod(shape)) <= machine.memory() // 2:
            with suppress(OSError, ValueError):  # the system allows no more, or the file is too short by now
                # Private and therefore writeable, as torch demands; nothing writes to it.
                mapped = mmap.mmap(self._file.fileno(), size, access=mmap.ACCESS_COPY)
                self._pixels = torch.frombuffer(mapped, dtype=torch.uint8, offset=offset)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        count, height, width, channels = self._shape
        return count, channels, height, width

    def windows(self, rows: NDArray[np.int64], corners: NDArray[np.int64], target: Tensor) -> None:
        """Copies windows with top and left `corners`, [N, 2], of images `rows`, [N], to `target`, [N, h, w, C].

        Raises:
            UserError: the file became too short.
        """
        number, height, width, channels = target.shape
        if self._pixels is None:
            _copy_each(self, rows, corners, target)
            return
        line = self._shape[2] * channels
        starts = (rows * self._shape[1] + corners[:, 0]) * line + corners[:, 1] * channels
        self._check_length(rows, starts - corners[:, 1] * channels + height * line)
        # A view of the windows at all bytes, [bytes, h, w * C]; the last one ends with the file.
        places = len(self._pixels) - (height - 1) * line - width * channels + 1
        everywhere = self._pixels.as_strided((places, height, width * channels), (1, line, 1))
        torch.index_select(everywhere, 0, torch.from_numpy(starts), out=target.view(number, height, width * channels))

    def window(self, row: int, top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
        _, image_height, image_width, channels = self._shape
        buffer: NDArray[np.uint8] | None = getattr(self._read, "rows", None)
        if buffer is None or len(buffer) != height:
            buffer = self._read.rows = np.empty((height, image_width, channels), np.uint8)
        start = self._offset + (row * image_height + top) * image_width * channels
        if os.preadv(self._file.fileno(), [buffer.data], start) != buffer.nbytes:
            raise self._too_short(row)
        return buffer[:, left : left + width]

    def _check_length(self, rows: NDArray[np.int64], ends: NDArray[np.int64]) -> None:
        """`ends`, [N]: the pixels' bytes that are needed for each of `rows`."""
        beyond = ends > os.fstat(self._file.fileno()).st_size - self._offset
        if beyond.any():
            raise self._too_short(int(rows[beyond.argmax()]))

    def _too_short(self, row: int) -> UserError:
        return UserError(f"{self._path} ends within image {row}: it was cut short after it was opened")


class Buffers:
    """Reuses the memory of released batches: allocating fresh pages would cost half as much time as copying.

    Torch itself reuses page-locked memory.
    """

    def __init__(self, pin_memory: bool) -> None:
        self.pin_memory = pin_memory
        self._free: list[NDArray[np.uint8]] = []

    def take(self, *shape: int) -> Tensor:
        """uint8 of `shape`, uninitialised; thread-safe."""
        size = math.prod(shape)
        if self.pin_memory or size == 0:
            return torch.empty(shape, dtype=torch.uint8, pin_memory=self.pin_memory)
        try:
            memory = self._free.pop()
        except IndexError:
            memory = np.empty(size, np.uint8)
        if len(memory) < size:
            memory = np.empty(size, np.uint8)
        used = memory[:size]
        # The tensor and its views keep `used` alive, but not `memory`.
        weakref.finalize(used, self._free.append, memory).atexit = False
        return torch.from_numpy(used).view(shape)


def gather(images: WindowedImages, rows: NDArray[np.int64], corners: NDArray[np.int64], target: Tensor) -> None:
    """Copies windows with top and left `corners`, [N, 2], of images `rows`, [N], to `target`, uint8 [N, h, w, C]."""
    if isinstance(images, PixelFile):
        images.windows(rows, corners, target)
    else:
        _copy_each(images, rows, corners, target)


def _copy_each(images: WindowedImages, rows: NDArray[np.int64], corners: NDArray[np.int64], target: Tensor) -> None:
    pixels, size = target.numpy(), target.shape[1:3]
    # Reading, decoding and copying release the GIL; the loop itself costs 2 us per image.
    for place, (row, (top, left)) in enumerate(zip(rows.tolist(), corners.tolist(), strict=True)):
        pixels[place] = images.window(row, top, left, *size)
