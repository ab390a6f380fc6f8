import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from tests.data.store.conftest import encoded
from torchvision.transforms import CenterCrop, Resize

from alexnet_lab.data.store import images
from alexnet_lab.data.store.images import to_jpeg, to_square
from alexnet_lab.data.store.modes import Unreadable


def reference(image: Image.Image) -> np.ndarray:
    return np.asarray(CenterCrop(256)(Resize(256)(image.convert("RGB"))))


def gradient(width=400, height=300) -> Image.Image:
    """Red increases to the right, green downwards."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.linspace(0, 255, width)
    pixels[..., 1] = np.linspace(0, 255, height)[:, None]
    return Image.fromarray(pixels)


def test_photographs_are_scaled_and_cropped_like_in_torchvision(photographs):
    for data in photographs[:40]:
        assert np.array_equal(to_square(data), reference(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("size", [(256, 256), (100, 70), (257, 300), (1000, 333), (20, 20)])
def test_any_size_is_scaled_by_its_shorter_side_and_cropped_in_the_centre(size):
    assert np.array_equal(to_square(encoded(gradient(*size), "PNG")), reference(gradient(*size)))


@pytest.mark.parametrize("mode", ["L", "LA", "1", "P", "RGBA", "CMYK", "YCbCr"])
def test_every_mode_is_converted_to_rgb(mode):
    form = "TIFF" if mode in ("CMYK", "YCbCr") else "PNG"
    image = gradient().convert(mode)
    square = to_square(encoded(image, form))
    assert (square.shape, square.dtype) == ((256, 256, 3), np.uint8)
    assert np.array_equal(square, reference(image))


@pytest.mark.parametrize(("form", "order"), [("PNG", "<"), ("TIFF", "<"), ("TIFF", ">")])
def test_sixteen_bits_are_scaled_to_eight(form, order):
    grey = np.linspace(0, 65535, 400 * 300).reshape(300, 400)
    found = to_square(encoded(Image.fromarray(grey.round().astype(f"{order}u2")), form))
    assert np.array_equal(found, reference(Image.fromarray((grey.round() / 257).round().astype(np.uint8))))
    assert (found.min(), found.max()) == (0, 255)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_of_an_unknown_range_are_unreadable(mode):
    with pytest.raises(Unreadable, match=f"pixels of {mode}, 32 bits, whose range is unknown"):
        to_square(encoded(gradient().convert("L").convert(mode), "TIFF"))


def test_a_grey_and_a_cmyk_jpeg_keep_their_colours():
    grey = to_square(encoded(gradient().convert("L"), quality=95))
    assert np.array_equal(grey[..., 0], grey[..., 2])
    colour = to_square(encoded(gradient().convert("CMYK"), quality=95)).astype(int)
    assert np.abs(colour - reference(gradient())).mean() < 4


@pytest.mark.parametrize(("orientation", "turned"), [(3, Image.Transpose.ROTATE_180), (6, Image.Transpose.ROTATE_270)])
def test_an_exif_rotated_photograph_is_put_upright(orientation, turned):
    exif = Image.Exif()
    exif[0x0112] = orientation
    square = to_square(encoded(gradient(), exif=exif, quality=95)).astype(int)
    assert np.abs(square - reference(gradient().transpose(turned))).mean() < 4


@pytest.mark.parametrize(
    ("tag", "kind", "value"),
    [(0x011A, 2, b"abc\0"), (0x011A, 9, struct.pack("<i", -5)), (0x0131, 11, struct.pack("<f", 7.5))],
    ids=["resolution as text", "negative resolution", "software as a number"],
)
def test_invalid_tag_next_to_the_orientation_is_ignored(tag, kind, value):
    entries = [(0x0112, 3, struct.pack("<HH", 6, 0)), (tag, kind, value)]
    table = b"".join(
        struct.pack("<HHI", number, form, 4 if form == 2 else 1) + field for number, form, field in entries
    )
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + table + bytes(4)
    plain = encoded(gradient(), quality=95)
    odd = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:]
    turned = gradient().transpose(Image.Transpose.ROTATE_270)
    assert np.abs(to_square(odd).astype(int) - reference(turned)).mean() < 4


def test_damaged_files_are_unreadable(photographs):
    for data in (photographs[0][:-500], photographs[0][:100], b"", b"text", encoded(gradient(), "PNG")[:-300]):
        with pytest.raises(Unreadable):
            to_square(data)


def png_of_size(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_decompression_bombs_are_unreadable(monkeypatch):
    with pytest.raises(Unreadable, match="decompression bomb"):
        to_square(png_of_size(10_000, 9_000))
    with pytest.raises(Unreadable, match="3000 x 1 is too narrow"):
        to_square(encoded(Image.new("RGB", (3000, 1)), "PNG"))
    monkeypatch.setattr(images, "MAX_BYTES", 100)
    with pytest.raises(Unreadable, match="at most 100 are read"):
        to_square(encoded(gradient()))


def test_a_stored_jpeg_is_close_to_its_image_and_a_ninth_of_its_size(photographs):
    squares = [to_square(data) for data in photographs[:40]]
    jpegs = [to_jpeg(square) for square in squares]
    errors = [
        np.abs(np.asarray(Image.open(io.BytesIO(jpeg))) - square.astype(int)).mean()
        for jpeg, square in zip(jpegs, squares, strict=True)
    ]
    assert np.mean(errors) < 3.5
    assert sum(map(len, jpegs)) < 0.13 * sum(square.nbytes for square in squares)


def test_other_files_are_read_by_a_pillow_without_the_format_that_it_deprecates(monkeypatch):
    Image.init()
    im = encoded(gradient(), "IM")
    monkeypatch.delitem(Image.OPEN, "IM")
    for form in ("TGA", "PCX", "PNG"):
        assert np.array_equal(to_square(encoded(gradient(), form)), reference(gradient()))
    for data in (im, b"text"):
        with pytest.raises(Unreadable, match=r"^not an image in a format that Pillow can decode"):
            to_square(data)
