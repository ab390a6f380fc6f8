"""Copies or decodes the needed window of each stored image into one tensor.

M stored images, N samples, C channels, H W stored size, h w window size.
"""

import math
import os
import threading
import weakref
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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
    """Pixels [M, H, W, C] in a file, starting at `offset`; the rows of a window are read into a reused buffer.

    A memory-mapped file is a third faster once all of it is in memory. Until then, and if the file is larger than
    memory, a page fault reads either one page or, on some systems, megabytes around it. If another program truncates a
    mapped file, the process is killed.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, path: Path, offset: int, shape: tuple[int, int, int, int]) -> None:
        self._path = path
        self._file = path.open("rb", buffering=0)
        weakref.finalize(self, self._file.close)
        self._offset = offset
        self._shape = shape
        self._read = threading.local()

    @property
    def shape(self) -> tuple[int, int, int, int]:
        count, height, width, channels = self._shape
        return count, channels, height, width

    def window(self, row: int, top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
        _, image_height, image_width, channels = self._shape
        buffer: NDArray[np.uint8] | None = getattr(self._read, "rows", None)
        if buffer is None or len(buffer) != height:
            buffer = self._read.rows = np.empty((height, image_width, channels), np.uint8)
        start = self._offset + (row * image_height + top) * image_width * channels
        if os.preadv(self._file.fileno(), [buffer.data], start) != buffer.nbytes:
            raise UserError(f"{self._path} ends within image {row}: it was cut short after it was opened")
        return buffer[:, left : left + width]


class Buffers:
    """Reuses the memory of released batches: allocating fresh pages would cost half as much time as copying.

    Torch itself reuses page-locked memory.
    """

    def __init__(self, pin_memory: bool) -> None:
        self._pin_memory = pin_memory
        self._free: list[NDArray[np.uint8]] = []

    def take(self, *shape: int) -> Tensor:
        """uint8 of `shape`, uninitialised; thread-safe."""
        size = math.prod(shape)
        if self._pin_memory or size == 0:
            return torch.empty(shape, dtype=torch.uint8, pin_memory=self._pin_memory)
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


def gather(
    images: WindowedImages,
    rows: NDArray[np.int64],
    corners: NDArray[np.int64],
    size: tuple[int, int],
    buffers: Buffers,
) -> Tensor:
    """uint8 [N, C, h, w] in channels_last order: the windows of `size` with top and left `corners`, [N, 2]."""
    out = buffers.take(len(rows), *size, images.shape[1])
    target = out.numpy()
    # NumPy releases the GIL while it copies a window; the loop itself costs 2 us per image.
    for place, (row, (top, left)) in enumerate(zip(rows.tolist(), corners.tolist(), strict=True)):
        target[place] = images.window(row, top, left, *size)
    return out.permute(0, 3, 1, 2)
