"""From stored images to one tensor: of each image only the window that is used is copied, or decoded into its place.

M stored images, N samples, C channels, H W stored size, h w window size.
"""

import math
import weakref
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class WindowedImages(Protocol):
    """Images that are read one at a time, by several threads at once."""

    dtype: np.dtype[np.uint8]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """[M, C, H, W]"""

    def window(self, row: int, top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
        """[height, width, C] of image `row`; a view where one will do."""


class PixelImages:
    """Pixels [M, H, W, C] in memory or mapped from a file."""

    dtype = np.dtype(np.uint8)

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self._pixels = np.asarray(pixels)  # a memmap would make each slice a memmap of its own, at 4 us

    @property
    def shape(self) -> tuple[int, int, int, int]:
        count, height, width, channels = self._pixels.shape
        return count, channels, height, width

    def window(self, row: int, top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
        return self._pixels[row, top : top + height, left : left + width]


class Buffers:
    """Memory for batches, used again when nothing refers to the batch in it: fresh pages cost half as much as copying.

    Page-locked memory is torch's affair, which does the same.
    """

    def __init__(self, pin_memory: bool) -> None:
        self._pin_memory = pin_memory
        self._free: list[NDArray[np.uint8]] = []

    def take(self, *shape: int) -> Tensor:
        """uint8 of `shape`, with any contents; several threads may ask."""
        size = math.prod(shape)
        if self._pin_memory or size == 0:
            return torch.empty(shape, dtype=torch.uint8, pin_memory=self._pin_memory)
        try:
            memory = self._free.pop()
        except IndexError:
            memory = np.empty(size, np.uint8)
        if len(memory) < size:
            memory = np.empty(size, np.uint8)
        lent = memory[:size]
        # The tensor and all that is made of it keep `lent` alive, and not `memory`.
        weakref.finalize(lent, self._free.append, memory).atexit = False
        return torch.from_numpy(lent).view(shape)


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
    # NumPy copies the rows of a window without holding Python's lock; the loop itself costs 2 us per image.
    for place, (row, (top, left)) in enumerate(zip(rows.tolist(), corners.tolist(), strict=True)):
        target[place] = images.window(row, top, left, *size)
    return out.permute(0, 3, 1, 2)
