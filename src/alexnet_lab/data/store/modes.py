"""Converts an image of any of Pillow's modes to 8-bit RGB or grey, without transparency."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Transparency = Literal["white"]
"""The background of transparent pixels. With None instead, their colour in the file is used."""
WHITE_IS_ZERO = 0
PHOTOMETRIC, BITS_PER_SAMPLE = 262, 258
"""TIFF tags."""
PNG_BIT_DEPTH = 24
"""Its position in a PNG file."""
RANGE_KNOWN = {("PNG", "I;16"), ("TIFF", "I;16"), ("JPEG2000", "I;16"), ("IM", "I;16"), ("PPM", "I")}
"""Formats and modes of more than 8 bits whose value of white is known; Pillow scales PPM to 65535."""


class Unreadable(ValueError):
    """An image file that is damaged, too large, or not an image."""


def flattened(
    image: Image.Image, data: bytes, mode: Literal["RGB", "L"], transparency: Transparency | None
) -> Image.Image:
    """A loaded image in `mode`, composed over white if `transparency` is `white`; `data` is its file.

    Raises:
        Unreadable: its pixels have more than 8 bits and an unknown range.
    """
    image = _eight_bits(image, data)
    if image.mode == "LAB":  # Pillow converts it only to RGB
        image = image.convert("RGB")
    return (_over_white(image) if transparency else image).convert(mode)


def _over_white(image: Image.Image) -> Image.Image:
    """round((value * alpha + 255 * (255 - alpha)) / 255) per channel; an opaque image is unchanged."""
    if not image.has_transparency_data:
        return image
    clear = image if image.mode == "LA" else image.convert("RGBA")
    white = Image.new(clear.mode[:-1], clear.size, "white")
    white.paste(clear.convert(white.mode), mask=clear.getchannel("A"))
    return white


def _eight_bits(image: Image.Image, data: bytes) -> Image.Image:
    """The image with pixels and transparent colour of 8 bits; Pillow itself would clip values above 255."""
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
    """Scale the transparent colour of a PNG from the file's bit depth to 8 bits, because Pillow does not."""
    colour = image.info.get("transparency")
    if image.format != "PNG" or colour is None:
        return
    depth = data[PNG_BIT_DEPTH]
    if image.mode == "L" and depth < 8:
        image.info["transparency"] = colour * 255 // (2**depth - 1)
    elif image.mode == "RGB" and depth == 16:
        image.info["transparency"] = tuple(value >> 8 for value in colour)
