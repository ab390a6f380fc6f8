"""Images decoded on demand: from a JPEG store, or from the image files of a folder.

H W stored size.
"""

import io
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from alexnet_lab.data.jpeg_markers import jpeg_shape
from alexnet_lab.data.sources.blobs import Blob, reason_of
from alexnet_lab.data.store.format import IMAGE_SHAPE
from alexnet_lab.data.store.images import MAX_PIXELS, SIZE, decode_jpeg, orientation_turn, read_image, to_square
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
            image = decode_square(self._jpegs[row])
        except Unreadable as error:
            raise UserError(
                f"{self._jpegs.path}: image {row} is damaged ({error}); to find all of them: {self._jpegs.check}"
            ) from error
        return image[top : top + height, left : left + width]


class ImageFiles:
    """Image files of any size and format, scaled to 256 x 256 like `prepare` does, again in every epoch.

    Args:
        transparency: see `to_square`.
        name: the name of image `row` in messages, such as its path in an archive; by default the file on disk.
        path: the name of image `row` in records, relative to the dataset's folder; by default the file on disk.
    """

    dtype = np.dtype(np.uint8)

    def __init__(
        self,
        blobs: Sequence[Blob],
        transparency: Transparency | None = "white",
        name: Callable[[int], str] | None = None,
        path: Callable[[int], str] | None = None,
    ) -> None:
        self._blobs = blobs
        self._transparency = transparency
        self._name = name or (lambda row: blobs[row].file)
        self.path = path or (lambda row: blobs[row].file)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self._blobs), 3, SIZE, SIZE

    def window(self, row: int, top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
        blob = self._blobs[row]
        try:
            data = read_image(blob)
            image = fast_square(data)
            if image is None:
                image = to_square(data, transparency=self._transparency)
        except (Unreadable, OSError) as error:
            raise UserError(f"{printable(self._name(row))} cannot be read: {reason_of(error)}") from error
        return image[top : top + height, left : left + width]


def decode_square(jpeg: bytes | NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Decode a JPEG of a store to uint8 [256, 256, 3]; Unreadable if it is damaged or has another size."""
    image = decode_jpeg(jpeg)
    if image.shape != IMAGE_SHAPE:
        raise Unreadable(f"its size is {image.shape[0]} x {image.shape[1]}, not {SIZE} x {SIZE}")
    return image


def fast_square(data: bytes) -> NDArray[np.uint8] | None:
    """`to_square` for a grey or RGB JPEG, uint8 [256, 256, 3]; None if `to_square` itself must decide.

    Torch's resize is 5 times as fast as PIL's, from which it differs by a grey level in rounding (by 2 in one of 400
    photographs).
    """
    height, width, channels = jpeg_shape(data) or (0, 0, 0)
    if channels not in (1, 3) or 0 in (height, width):
        return None
    shorter = min(height, width)
    scaled = (SIZE * height // shorter, SIZE * width // shorter)
    if max(height * width, scaled[0] * scaled[1]) > MAX_PIXELS:
        return None  # checked before decoding: it may be a decompression bomb
    try:
        if EXIF in data and orientation_turn(Image.open(io.BytesIO(data))) is not None:
            return None
        image = decode_jpeg(data)
    except (Unreadable, OSError):
        return None
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
    square = F.interpolate(pixels, scaled, mode="bilinear", antialias=True)[0].permute(1, 2, 0)
    top, left = (round((side - SIZE) / 2) for side in scaled)
    return square[top : top + SIZE, left : left + SIZE].numpy()
