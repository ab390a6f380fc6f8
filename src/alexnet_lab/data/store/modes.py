"""From an image of any of Pillow's modes to 8 bits of RGB or grey, without transparency."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Transparency = Literal["white"]
"""What transparent pixels are composed over. None in its place: their colour is taken as the file has it."""
WHITE_IS_ZERO = 0
PHOTOMETRIC, BITS_PER_SAMPLE = 262, 258
"""TIFF tags."""
PNG_BIT_DEPTH = 24
"""The byte of a PNG file that states it."""
RANGE_KNOWN = {("PNG", "I;16"), ("TIFF", "I;16"), ("JPEG2000", "I;16"), ("IM", "I;16"), ("PPM", "I")}
"""Formats and modes of more than 8 bits whose white is known; Pillow scales a PPM's to 65535."""


class Unreadable(ValueError):
    """An image file that is damaged, too large, or not an image."""


def flattened(
    image: Image.Image, data: bytes, mode: Literal["RGB", "L"], transparency: Transparency | None
) -> Image.Image:
    """A loaded image in `mode`, composed over white if `transparency` is `white`; `data` is its file.

    Raises:
        Unreadable: its pixels have more than 8 bits, and their range is not known.
    """
    image = _eight_bits(image, data)
    if image.mode == "LAB":  # which Pillow converts to RGB only
        image = image.convert("RGB")
    return (_over_white(image) if transparency else image).convert(mode)


def _over_white(image: Image.Image) -> Image.Image:
    """In each channel round((value * alpha + 255 * (255 - alpha)) / 255): an opaque image stays as it is."""
    if not image.has_transparency_data:
        return image
    clear = image if image.mode == "LA" else image.convert("RGBA")
    white = Image.new(clear.mode[:-1], clear.size, "white")
    white.paste(clear.convert(white.mode), mask=clear.getchannel("A"))
    return white


def _eight_bits(image: Image.Image, data: bytes) -> Image.Image:
    """The image with pixels and transparent colour of 8 bits; Pillow itself would clip what is above 255."""
    kind = image.mode.split(";")[0]
    if kind not in ("I", "F"):
        _scale_transparent_colour(image, data)
        return image
    mode = "I;16" if image.mode.startswith("I;16") else image.mode
    if (image.format, mode) not in RANGE_KNOWN:
        raise Unreadable(
            f"pixels of {image.mode}, {16 if mode == 'I;16' else 32} bits, whose range is unknown; expected: "
            "8 bits, or 16 bits of a PNG, TIFF, PGM or JPEG 2000"
        )
    values = np.asarray(image).astype(np.uint32)
    white = 65535
    tags: Any = getattr(image, "tag_v2", {})
    if tags:
        white = 2 ** tags.get(BITS_PER_SAMPLE, (16,))[0] - 1
    grey: NDArray[np.uint8] = ((values * 255 + white // 2) // white).astype(np.uint8)
    if tags and tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        grey = 255 - grey
    eight = Image.fromarray(grey)
    if "transparency" in image.info:
        eight.putalpha(Image.fromarray(np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)))
    return eight


def _scale_transparent_colour(image: Image.Image, data: bytes) -> None:
    """A PNG states it in the file's bit depth, and Pillow compares it with pixels of 8 bits."""
    colour = image.info.get("transparency")
    if image.format != "PNG" or colour is None:
        return
    depth = data[PNG_BIT_DEPTH]
    if image.mode == "L" and depth < 8:
        image.info["transparency"] = colour * 255 // (2**depth - 1)
    elif image.mode == "RGB" and depth == 16:
        image.info["transparency"] = tuple(value >> 8 for value in colour)
