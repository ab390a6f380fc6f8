"""Images decoded on demand: from a JPEG store, or from the image files of a folder.

H W stored size.
"""

import io
import re
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.io import decode_jpeg

from alexnet_lab.data.jpeg_markers import jpeg_size
from alexnet_lab.data.sources.blobs import Blob, reason_of
from alexnet_lab.data.store.images import MAX_PIXELS, SIZE, orientation_turn, read_image, to_square
from alexnet_lab.data.store.modes import Transparency, Unreadable
from alexnet_lab.data.store.reading import Jpegs
from alexnet_lab.errors import UserError, printable

EXIF = b"Exif\0\0"


class StoredJpegs:
    """The JPEGs of a store: a tenth of the bytes of uint8 pixels, but decoding takes 0.25 ms of CPU time per image."""

    dtype = np.dtype(np.uint8)

    def __init__(self, jpegs: Jpegs) -> None:
        self._jpegs = jpegs

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self._jpegs), 3, SIZE, SIZE

    def window(self, row: int, top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
        try:
            image = decode_square(torch.from_numpy(self._jpegs[row].copy()))  # torch requires a writeable array
        except RuntimeError as error:
            reason = re.sub(r"^decode_jpeg, \S+, ", "", str(error))  # without the location in torchvision's source
            raise UserError(
                f"{self._jpegs.path}: image {row} is damaged ({reason}); to find all of them: {self._jpegs.check}"
            ) from error
        return window_of(image, top, left, height, width)


class ImageFiles:
    """Image files of any size and format, scaled to 256 x 256 like `prepare` does, again in every epoch.

    Args:
        transparency: see `to_square`.
        name: the name of image `row` in messages, such as its path in an archive; by default the file on disk.
    """

    dtype = np.dtype(np.uint8)

    def __init__(
        self,
        blobs: Sequence[Blob],
        transparency: Transparency | None = "white",
        name: Callable[[int], str] | None = None,
    ) -> None:
        self._blobs = blobs
        self._transparency = transparency
        self._name = name or (lambda row: blobs[row].file)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self._blobs), 3, SIZE, SIZE

    def window(self, row: int, top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
        blob = self._blobs[row]
        try:
            data = read_image(blob)
            image = fast_square(data)
            if image is None:
                square = to_square(data, transparency=self._transparency)
                return square[top : top + height, left : left + width]
        except (Unreadable, OSError) as error:
            raise UserError(f"{printable(self._name(row))} cannot be read: {reason_of(error)}") from error
        return window_of(image, top, left, height, width)


def decode_square(jpeg: Tensor) -> Tensor:
    """Decode a JPEG, uint8 [bytes], to uint8 [3, 256, 256]; RuntimeError if it is damaged or has another size.

    A third faster than PIL; both use libjpeg-turbo.
    """
    image = decode_jpeg(jpeg)
    if image.shape != (3, SIZE, SIZE):
        raise RuntimeError(f"its size is {list(image.shape)}, not {[3, SIZE, SIZE]}")
    return image


def fast_square(data: bytes) -> Tensor | None:
    """`to_square` for a grey or RGB JPEG, uint8 [3, 256, 256]; None if `to_square` itself must decide.

    Torch's resize is 5 times as fast as PIL's, from which it differs by a grey level in rounding (by 2 in one of 400
    photographs).
    """
    size = jpeg_size(data)
    if size is None or 0 in size:
        return None
    shorter = min(size)
    if max(size[0] * size[1], SIZE * size[0] // shorter * (SIZE * size[1] // shorter)) > MAX_PIXELS:
        return None  # checked before decoding: it may be a decompression bomb
    try:
        if EXIF in data and orientation_turn(Image.open(io.BytesIO(data))) is not None:
            return None  # torch reads an orientation of any type as if it were a 16-bit number
        image = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8))
    except (RuntimeError, OSError):
        return None
    channels, height, width = image.shape
    shorter = min(height, width)
    scaled = (int(SIZE * height / shorter), int(SIZE * width / shorter))
    if channels not in (1, 3):
        return None
    pixels = image.expand(3, -1, -1)[None].contiguous(memory_format=torch.channels_last)
    square = F.interpolate(pixels, scaled, mode="bilinear", antialias=True)[0]
    top, left = (round((side - SIZE) / 2) for side in scaled)
    return square[:, top : top + SIZE, left : left + SIZE]


def window_of(image: Tensor, top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
    """[height, width, C] out of [C, H, W], not copied."""
    pixels: NDArray[np.uint8] = image.numpy()
    return pixels[:, top : top + height, left : left + width].transpose(1, 2, 0)
