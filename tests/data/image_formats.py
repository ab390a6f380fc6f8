"""Images of every format and mode with their expected pixels. All are 256 x 256."""

import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

SIDE = 256
WHITE = 255


@dataclass(frozen=True)
class Example:
    data: bytes
    pixels: np.ndarray
    """[256, 256, 3], or [256, 256] of a grey one"""
    lossy: bool = False
    """Whether the pixels may differ by up to 2 grey levels on average; otherwise they are exact."""

    @property
    def rgb(self) -> np.ndarray:
        return self.pixels if self.pixels.ndim == 3 else np.repeat(self.pixels[..., None], 3, axis=2)


def encoded(image: Image.Image, form: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(rows: np.ndarray, depth: int, colour_type: int, transparent: bytes = b"") -> bytes:
    """A PNG of raw rows, uint8 [256, bytes], with a tRNS chunk for transparency."""
    header = struct.pack(">IIBBBBB", SIDE, SIDE, depth, colour_type, 0, 0, 0)
    raw = zlib.compress(np.pad(rows, ((0, 0), (1, 0))).tobytes())
    chunks = [(b"IHDR", header), *([(b"tRNS", transparent)] if transparent else []), (b"IDAT", raw), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks)


def tiff(rows: bytes, bits: tuple[int, ...], photometric: int, extra: int | None = None) -> bytes:
    """An uncompressed TIFF in one strip; `bits` of each sample, `extra` the meaning of a fourth one."""
    short, long = 3, 4
    values = struct.pack(f"<{len(bits)}H", *bits)
    place = 8 + len(rows)
    several = len(bits) > 2  # too long for the entry itself
    entries = [
        (256, long, 1, SIDE),
        (257, long, 1, SIDE),
        (258, short, len(bits), place if several else bits[0]),
        (259, short, 1, 1),
        (262, short, 1, photometric),
        (273, long, 1, 8),
        (277, short, 1, len(bits)),
        (278, long, 1, SIDE),
        (279, long, 1, len(rows)),
        *([(338, short, 1, extra)] if extra is not None else []),
    ]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    return struct.pack("<2sHI", b"II", 42, place + len(values)) + rows + values + directory


def _rounded(grey_levels: np.ndarray) -> np.ndarray:
    return np.floor(grey_levels + 0.5).astype(np.uint8)


def over_white(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """uint8, rounded; `alpha` [256, 256] in [0, 255]."""
    weights = (alpha if pixels.ndim == 2 else alpha[..., None]) / 255
    return _rounded(pixels * weights + WHITE * (1 - weights))


# 16 blocks of different colours; alpha increases to the right, with columns of 0 and 255.
_random = np.random.default_rng(0)
PIXELS = np.kron(_random.integers(0, 256, (4, 4, 3), dtype=np.uint8), np.ones((64, 64, 1), np.uint8))
GREY = PIXELS[..., 0]
ALPHA = np.broadcast_to(np.arange(SIDE, dtype=np.uint8), (SIDE, SIDE))
BLOCKS = np.kron(np.arange(16, dtype=np.uint8).reshape(4, 4), np.ones((64, 64), np.uint8))
BITS = np.kron(_random.integers(0, 2, (4, 4), dtype=np.uint8), np.ones((64, 64), np.uint8)) * WHITE
DEEP = np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE)
DEEP_GREY = _rounded(DEEP / 257)
FIRST = PIXELS[32, 32]
"""The colour of the first block."""

rgb, grey, bits = Image.fromarray(PIXELS), Image.fromarray(GREY), Image.fromarray(BITS).convert("1")
deep = Image.fromarray(DEEP)
other = Image.new("RGBA", (SIDE, SIDE), (1, 2, 3, 4))
rgba, la = rgb.copy(), grey.copy()
rgba.putalpha(Image.fromarray(ALPHA.copy()))
la.putalpha(Image.fromarray(ALPHA.copy()))
palette = Image.fromarray(BLOCKS)
palette.putpalette(PIXELS[32::64, 32::64].tobytes())
FADED = bytes(range(0, 256, 17))
"""The alpha of each colour of the palette."""

LOSSLESS = {
    "WEBP": {"lossless": True, "exact": True},
    "TIFF": {"compression": "tiff_lzw"},
    "ICO": {"sizes": [(256, 256)]},
}
BEST = {
    "JPEG": {"quality": 100, "subsampling": 0},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    "WEBP": {"quality": 100},
}
COLOUR_FORMATS = (
    *("PNG", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "TGA"),
    *("PCX", "DIB", "DDS", "QOI", "SGI", "ICO", "IM"),
)


def _opaque() -> dict[str, Example]:
    found = {}
    for form in COLOUR_FORMATS:
        found[f"rgb.{form}"] = Example(encoded(rgb, form, **LOSSLESS.get(form, {})), PIXELS)
    for form in ("PNG", "BMP", "TIFF", "GIF", "PPM", "JPEG2000", "TGA", "PCX", "SGI", "IM"):
        found[f"grey.{form}"] = Example(encoded(grey, form), GREY)
    for form in ("PNG", "BMP", "TIFF", "PPM", "PCX", "MSP", "XBM"):
        found[f"bits.{form}"] = Example(encoded(bits, form), BITS)
    for form in ("PNG", "GIF", "BMP", "TIFF", "TGA", "PCX"):
        found[f"palette.{form}"] = Example(encoded(palette, form), PIXELS)
    for form in BEST:
        found[f"lossy.{form}"] = Example(encoded(rgb, form, **BEST[form]), PIXELS, lossy=True)
    found["cmyk.TIFF"] = Example(encoded(rgb.convert("CMYK"), "TIFF"), PIXELS)
    found["cmyk.JPEG"] = Example(encoded(rgb.convert("CMYK"), "JPEG", **BEST["JPEG"]), PIXELS, lossy=True)
    found["ycbcr.TIFF"] = Example(encoded(rgb.convert("YCbCr"), "TIFF"), PIXELS, lossy=True)
    found["lab.TIFF"] = Example(encoded(rgb.convert("LAB"), "TIFF"), PIXELS, lossy=True)
    return found


def _deep() -> dict[str, Example]:
    """More than 8 bits: scaled, not clipped."""
    forms = ("PNG", "TIFF", "PPM", "JPEG2000", "IM")
    found = {f"deep.{form}": Example(encoded(deep, form), DEEP_GREY) for form in forms}
    found["big_endian.TIFF"] = Example(encoded(Image.fromarray(DEEP.astype(">u2")), "TIFF"), DEEP_GREY)
    found["white_is_zero.TIFF"] = Example(tiff(DEEP.tobytes(), (16,), 0), WHITE - DEEP_GREY)
    twelve = DEEP >> 4
    one, two = twelve[:, ::2], twelve[:, 1::2]
    packed = np.stack([one >> 4, (one & 15) << 4 | two >> 8, two & 255], 2).astype(np.uint8)
    found["12_bits.TIFF"] = Example(tiff(packed.tobytes(), (12,), 1), _rounded(twelve * (255 / 4095)))
    colours = np.stack([DEEP, DEEP[::-1], DEEP.T], 2)
    high_bytes = (colours >> 8).astype(np.uint8)  # as Pillow reads colours of 16 bits
    big_endian = colours.astype(">u2")
    found["rgb_16.PNG"] = Example(png(big_endian.view(np.uint8).reshape(SIDE, -1), 16, 2), high_bytes)
    found["rgb_16.PPM"] = Example(b"P6 256 256 65535\n" + big_endian.tobytes(), _rounded(colours / 257))
    ten = DEEP >> 6
    found["10_bits.PPM"] = Example(b"P5 256 256 1023\n" + ten.astype(">u2").tobytes(), _rounded(ten * (255 / 1023)))
    return found


def _transparent() -> dict[str, Example]:
    found = {}
    for form in ("PNG", "WEBP", "TIFF", "TGA", "JPEG2000", "DDS", "QOI", "SGI", "ICO"):
        found[f"rgba.{form}"] = Example(encoded(rgba, form, **LOSSLESS.get(form, {})), over_white(PIXELS, ALPHA))
    for form in ("PNG", "TIFF", "TGA", "JPEG2000"):
        found[f"la.{form}"] = Example(encoded(la, form), over_white(GREY, ALPHA))
    found["rgba.AVIF"] = Example(encoded(rgba, "AVIF", **BEST["AVIF"]), over_white(PIXELS, ALPHA), lossy=True)
    associated = np.dstack([_rounded(PIXELS * (ALPHA[..., None] / 255)), ALPHA])
    found["associated.TIFF"] = Example(
        tiff(associated.tobytes(), (8, 8, 8, 8), 2, extra=1), over_white(PIXELS, ALPHA), lossy=True
    )
    one_clear = np.where(BLOCKS == 5, 0, 255)
    for form in ("PNG", "GIF"):
        found[f"palette_index.{form}"] = Example(encoded(palette, form, transparency=5), over_white(PIXELS, one_clear))
    faded = np.frombuffer(FADED, np.uint8)[BLOCKS]
    found["palette_alphas.PNG"] = Example(encoded(palette, "PNG", transparency=FADED), over_white(PIXELS, faded))
    found["4_bits_trns.PNG"] = Example(
        png(BLOCKS[:, ::2] << 4 | BLOCKS[:, 1::2], 4, 0, struct.pack(">H", 5)), over_white(BLOCKS * 17, one_clear)
    )
    first = tuple(map(int, FIRST))
    is_first = np.where((PIXELS == FIRST).all(2), 0, 255)
    found["rgb_trns.PNG"] = Example(encoded(rgb, "PNG", transparency=first), over_white(PIXELS, is_first))
    twice = np.repeat(PIXELS.reshape(SIDE, -1), 2, axis=1)  # 16 bits of twice the same byte
    transparent = struct.pack(">3H", *(257 * value for value in first))
    found["rgb_16_trns.PNG"] = Example(png(twice, 16, 2, transparent), over_white(PIXELS, is_first))
    is_grey = np.where(first[0] == GREY, 0, 255)
    found["grey_trns.PNG"] = Example(encoded(grey, "PNG", transparency=first[0]), over_white(GREY, is_grey))
    is_deep = np.where(DEEP == 1000, 0, 255)
    found["deep_trns.PNG"] = Example(encoded(deep, "PNG", transparency=1000), over_white(DEEP_GREY, is_deep))
    found["bits_trns.PNG"] = Example(encoded(bits, "PNG", transparency=0), np.full_like(BITS, WHITE))
    return found


def _of_several_frames() -> dict[str, Example]:
    """Several frames: the first one counts."""
    more = {"save_all": True, "append_images": [other, other]}
    opaque = {"save_all": True, "append_images": [other.convert("RGB")]}
    clear = over_white(PIXELS, ALPHA)
    return {
        "animated.PNG": Example(encoded(rgba, "PNG", **more), clear),
        "animated.WEBP": Example(encoded(rgba, "WEBP", **more, **LOSSLESS["WEBP"]), clear),
        "animated.GIF": Example(
            encoded(palette, "GIF", save_all=True, append_images=[palette.rotate(90)], transparency=5),
            over_white(PIXELS, np.where(BLOCKS == 5, 0, 255)),
        ),
        "animated.AVIF": Example(encoded(rgb, "AVIF", **BEST["AVIF"], **opaque), PIXELS, lossy=True),
        "pages.TIFF": Example(encoded(rgba, "TIFF", **more), clear),
        "pair.MPO": Example(encoded(rgb, "MPO", **BEST["JPEG"], **opaque), PIXELS, lossy=True),
    }


OPAQUE = _opaque() | _deep()
TRANSPARENT = _transparent() | _of_several_frames()
EXAMPLES = OPAQUE | TRANSPARENT
