"""From the bytes of an image file to the 256 x 256 RGB image of the paper's section 2.

The shorter side is scaled to 256 with PIL's antialiased bilinear filter, then the centre is cropped: bit-identical to
torchvision's `Resize(256)` and `CenterCrop(256)` of the same PIL image. Smaller images are enlarged.
"""

import io
import warnings
from contextlib import suppress
from typing import Literal

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from alexnet_lab.data.image_kinds import FORMATS, unidentified
from alexnet_lab.data.jpeg_markers import is_cut
from alexnet_lab.data.sources.blobs import Blob
from alexnet_lab.data.store.modes import Transparency, Unreadable, flattened

try:
    import simplejpeg
except ImportError:  # there is no wheel for this platform; Pillow decodes the same pixels
    simplejpeg = None

DECODERS = f"Pillow {PIL.__version__}, simplejpeg {simplejpeg and simplejpeg.__version__}"
SIZE = 256
MAX_BYTES = 256 * 2**20
"""Largest image file: `MAX_PIXELS` of 3 bytes, uncompressed."""
MAX_PIXELS = 89_478_485
"""Pillow's limit, above which it warns of a decompression bomb; ImageNet's largest image has 61 million."""
JPEG_QUALITY = 90
"""With chroma subsampling, a ninth of the bytes of uint8; pixels differ by 2.8 of 255 grey levels on average."""


TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transposition that makes an image upright, by EXIF orientation."""


def read_image(blob: Blob) -> bytes:
    """The bytes of an image file.

    Raises:
        Unreadable: it is too large, or a JPEG without an end marker.
        OSError: see `Blob.read`.
    """
    if blob.size > MAX_BYTES:
        raise Unreadable(f"{blob.size} bytes, at most {MAX_BYTES} are read")
    data = blob.read()
    if is_cut(data):
        raise Unreadable("the file is cut off or overwritten: the JPEG has no end marker")
    return data


def to_square(
    data: bytes,
    mode: Literal["RGB", "L"] = "RGB",
    keep_small: bool = False,
    transparency: Transparency | None = "white",
) -> NDArray[np.uint8]:
    """[256, 256, 3], or [256, 256] for mode L: turned upright by its EXIF data, converted to RGB or grey.

    The content determines the format, not the file's name. Of several frames or pages, the first is used.

    Args:
        keep_small: never enlarge: if the shorter side S is below 256, the centre [S, S] is returned.
        transparency: the colour under transparent pixels, applied before the image is scaled.

    Raises:
        Unreadable: see there.
    """
    if len(data) > MAX_BYTES:
        raise Unreadable(f"{len(data)} bytes, at most {MAX_BYTES} are read")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about unusual metadata, which thousands of ImageNet's files have
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:  # other threads may have changed the warnings' filter
                    raise Unreadable(f"{image.width} x {image.height} pixels could be a decompression bomb")
                image.load()
                turn = orientation_turn(image)
                flat = flattened(image, data, mode, transparency)
                upright = flat if turn is None else flat.transpose(turn)
                return np.asarray(_square(upright, min(SIZE, *upright.size) if keep_small else SIZE))
    # Pillow's message contains a memory address, which differs between runs. KeyError: it has no IM any more.
    except (UnidentifiedImageError, KeyError):
        raise Unreadable(unidentified(data)) from None
    except MemoryError:  # a problem of this machine, not of the file
        raise
    # Pillow raises almost any exception for damaged files: OSError, SyntaxError, struct.error, zlib.error, ...
    except Exception as error:
        raise Unreadable(str(error) or type(error).__name__) from error


def decode_jpeg(data: bytes | NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A grey or RGB JPEG, not turned, as RGB [H, W, 3]. Releases the GIL.

    simplejpeg needs 30 % less time than Pillow. It refuses a file about which libjpeg warns; Pillow reads it if its
    pixel data have an end. Both contain libjpeg-turbo, so their pixels are the same, to the bit.

    Raises:
        Unreadable: the file is damaged or cut off.
    """
    if simplejpeg is not None:
        with suppress(ValueError):
            pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB")
            return pixels
    return decode_by_pillow(data)


def decode_by_pillow(data: bytes | NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`decode_jpeg` by Pillow alone."""
    try:
        with Image.open(io.BytesIO(bytes(data)), formats=("JPEG",)) as image:
            return np.array(image if image.mode == "RGB" else image.convert("RGB"))
    except MemoryError:
        raise
    except Exception as error:
        raise Unreadable(str(error) or type(error).__name__) from error


def to_jpeg(image: NDArray[np.uint8]) -> bytes:
    """A baseline JPEG of `JPEG_QUALITY` with 4:2:0 chroma of an image [H, W, 3]."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=JPEG_QUALITY, subsampling="4:2:0")
    return file.getvalue()


def orientation_turn(image: Image.Image) -> Image.Transpose | None:
    """The transposition that makes an open image upright; None if it is upright or its EXIF data is damaged."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged EXIF data in an intact image
        return None
    return TURNS.get(orientation) if isinstance(orientation, int) else None


def _square(image: Image.Image, size: int) -> Image.Image:
    width, height = image.size
    shorter = min(width, height)
    scaled = (int(size * width / shorter), int(size * height / shorter))
    if scaled[0] * scaled[1] > MAX_PIXELS:
        raise Unreadable(f"{width} x {height} is too narrow to scale")
    left, top = (round((side - size) / 2) for side in scaled)
    return image.resize(scaled, Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))
