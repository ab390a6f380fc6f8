"""Images that are decoded when they are asked for: from a JPEG store, or from image files as they lie in a folder.

H W stored size.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torchvision.io import decode_jpeg

from alexnet_lab.data.sources.listing import Blob
from alexnet_lab.data.store.images import MAX_BYTES, MAX_PIXELS, SIZE, Unreadable, to_square
from alexnet_lab.data.store.reading import Jpegs
from alexnet_lab.errors import UserError

JPEG_MAGIC = b"\xff\xd8"


class StoredJpegs:
    """The JPEGs of a store: as many bytes a tenth as pixels have, and 0.25 ms of a core per image to decode."""

    dtype = np.dtype(np.uint8)

    def __init__(self, jpegs: Jpegs) -> None:
        self._jpegs = jpegs

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self._jpegs), 3, SIZE, SIZE

    def window(self, row: int, top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
        try:
            # A third faster than PIL; both use libjpeg-turbo. The copy, of 20 kB, is writeable: torch insists.
            image = decode_jpeg(torch.from_numpy(self._jpegs[row].copy()))
        except RuntimeError as error:
            raise UserError(f"image {row} of the store is damaged ({error}); verify=true finds all of them") from error
        return _window(image, top, left, height, width)


class ImageFiles:
    """Files of any size and kind, each made 256 x 256 as `prepare` would: what a store holds, anew in every epoch."""

    dtype = np.dtype(np.uint8)

    def __init__(self, blobs: Sequence[Blob]) -> None:
        self._blobs = blobs

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self._blobs), 3, SIZE, SIZE

    def window(self, row: int, top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
        blob = self._blobs[row]
        try:
            if blob.size > MAX_BYTES:
                raise Unreadable(f"{blob.size} bytes, at most {MAX_BYTES} are read")
            data = blob.read()
            image = fast_square(data)
            if image is None:
                return to_square(data)[top : top + height, left : left + width]
        except (Unreadable, OSError) as error:
            raise UserError(f"{blob.file} cannot be read: {error}") from error
        return _window(image, top, left, height, width)


def fast_square(data: bytes) -> Tensor | None:
    """`to_square` of a grey or RGB JPEG, uint8 [3, 256, 256], or None where `to_square` itself is to decide.

    Torch's resize is 5 times as fast as PIL's, from which it differs by a grey level in rounding (by 2 in one of 400
    photographs).
    """
    if not data.startswith(JPEG_MAGIC):
        return None
    try:
        image = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), apply_exif_orientation=True)
    except RuntimeError:
        return None
    channels, height, width = image.shape
    shorter = min(height, width)
    scaled = (int(SIZE * height / shorter), int(SIZE * width / shorter))
    if channels not in (1, 3) or max(height * width, scaled[0] * scaled[1]) > MAX_PIXELS:
        return None
    pixels = image.expand(3, -1, -1)[None].contiguous(memory_format=torch.channels_last)
    square = F.interpolate(pixels, scaled, mode="bilinear", antialias=True)[0]
    top, left = (round((side - SIZE) / 2) for side in scaled)
    return square[:, top : top + SIZE, left : left + SIZE]


def _window(image: Tensor, top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
    """[height, width, C] out of [C, H, W], not copied."""
    pixels: NDArray[np.uint8] = image[:, top : top + height, left : left + width].permute(1, 2, 0).numpy()
    return pixels
