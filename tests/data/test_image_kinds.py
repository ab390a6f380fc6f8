import io
import struct
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from alexnet_lab.data.image_kinds import (
    FORMATS,
    HEADER_BYTES,
    NOT_DECODED,
    LeftOut,
    is_image_header,
    is_image_name,
    unidentified,
)
from alexnet_lab.data.store.images import to_square

GREY = Image.fromarray(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64).astype(np.uint8))


def fits(width=64, height=64) -> bytes:
    cards = ["SIMPLE  = T", "BITPIX  = 8", "NAXIS   = 2", f"NAXIS1  = {width}", f"NAXIS2  = {height}", "END"]
    header = "".join(card.ljust(80) for card in cards).ljust(2880).encode()
    return header + bytes(width * height)


def fli() -> bytes:
    black = struct.pack("<IH4x", 10, 13)
    frame = struct.pack("<IHH8x", 16 + len(black), 0xF1FA, 1) + black
    return struct.pack("<IHHHHHH", 128 + len(frame), 0xAF12, 1, 64, 64, 8, 3).ljust(128, b"\0") + frame


def cur() -> bytes:
    icon = io.BytesIO()
    GREY.convert("RGBA").save(icon, "ICO", sizes=[(64, 64)], bitmap_format="bmp")
    return icon.getvalue()[:2] + b"\2" + icon.getvalue()[3:]


def dcx() -> bytes:
    page = io.BytesIO()
    GREY.save(page, "PCX")
    return struct.pack("<III", 0x3ADE68B1, 12, 0) + page.getvalue()


WRITTEN_HERE = {
    "CUR": cur(),
    "DCX": dcx(),
    "FITS": fits(),
    "FLI": fli(),
    "FTEX": b"FTEX" + struct.pack("<iiiiiiii", 1, 64, 64, 1, 1, 1, 32, 64 * 64 * 3) + bytes(64 * 64 * 3),
    "GBR": struct.pack(">5I4sI", 34, 2, 64, 64, 1, b"GIMP", 10) + b"a name" + bytes(64 * 64),
    "PCD": bytes(2048) + b"PCD_".ljust(95 * 2048, b"\0") + bytes(768 * 512 * 3 // 2),
    "PIXAR": b"\x80\xe8\0\0".ljust(416, b"\0") + struct.pack("<2H4x2H", 64, 64, 14, 2).ljust(608, b"\0") + bytes(12288),
    "PSD": b"8BPS" + struct.pack(">H6xHIIHH", 1, 1, 64, 64, 8, 1) + bytes(12) + b"\0\0" + bytes(64 * 64),
    "SUN": struct.pack(">8I", 0x59A66A95, 64, 64, 8, 64 * 64, 1, 0, 0) + bytes(64 * 64),
    "XPM": b'/* XPM */\nstatic char *a[] = {\n"4 4 1 1",\n"x c #ff0000",\n' + b'"xxxx",\n' * 4 + b"};\n",
    "XVTHUMB": b"P7 332\n#END_OF_COMMENTS\n64 64 255\n" + bytes(64 * 64),
}


def example(form: str) -> bytes:
    if form in WRITTEN_HERE:
        return WRITTEN_HERE[form]
    file = io.BytesIO()
    mode = {"XBM": "1", "MSP": "1", "BLP": "P", "ICNS": "RGBA", "QOI": "RGB"}.get(form, "L")
    GREY.convert(mode).save(file, form)
    return file.getvalue()


def test_every_reader_of_pillow_is_used_or_excluded_with_a_reason() -> None:
    Image.init()
    optional = {"FPX", "MIC"}  # need the package olefile
    assert set(Image.ID) - optional == {*FORMATS, *NOT_DECODED}


@pytest.mark.smoke
@pytest.mark.parametrize("form", FORMATS)
def test_image_of_every_format_is_recognised_and_decoded(form) -> None:
    data = example(form)
    with Image.open(io.BytesIO(data), formats=[form]) as image:
        assert image.format.upper() == form
    assert to_square(data).shape == (256, 256, 3)
    assert is_image_header(data[:HEADER_BYTES]) == (form != "TGA")


def test_every_suffix_of_pillow_is_recognised_by_name_or_content() -> None:
    for suffix, form in Image.registered_extensions().items():
        if form == "MPO" or form in FORMATS:
            assert is_image_name(f"a{suffix}") or (is_image_name("a") is None and is_image_header(example(form)[:2052]))
            assert is_image_name(f"A{suffix.upper()}") == is_image_name(f"a{suffix}")
        else:
            assert not is_image_name(f"a{suffix}"), suffix


@pytest.mark.parametrize(
    ("name", "is_image"),
    [
        ("a.jpg.png", True),
        ("a.tar.JPG", True),
        ("a.txt", False),
        ("a.jpg.txt", None),
        ("a.dat", None),
        ("a.jpg~", False),
        ("a.jpg.crdownload", False),
        ("a.heic", None),
        ("a.NEF", False),
        ("a", None),
        ("a.jpg_large", None),
        ("a.jpg?w=200", None),
    ],
)
def test_name_decides_whether_a_file_is_an_image_or_defers_to_its_content(name, is_image) -> None:
    assert is_image_name(name) is is_image


@pytest.mark.parametrize(
    ("start", "known"),
    [
        (b"", "the file is empty"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "the content is HEIF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "the content is EPS"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg">', "the content is XML, such as SVG"),
        (b"<!DOCTYPE html><html>", "the content is a web page"),
        (b"P1 is the first of the players\n", "the content is text"),
        (b"BMW list\n" * 9, "the content is text"),
        (bytes(range(256)), "not an image in a format that Pillow can decode"),
    ],
)
def test_non_image_content_is_refused_and_described(start, known) -> None:
    assert not is_image_header(start)
    assert unidentified(start).endswith(known)


def test_ignored_files_are_one_line_per_reason_most_frequent_suffixes_first() -> None:
    assert LeftOut().lines() == []
    left_out = LeftOut(Counter({".doc": 2, ".heic": 1200, "": 1}), Counter({".txt": 3}), ["b", "a"], ["c"])
    assert left_out.lines() == [
        "left out (not images that Pillow can decode): 1,200 .heic, 2 .doc, 1 without suffix",
        "left out (by their names, not opened): 3 .txt",
        "left out (broken links): a, b",
        "left out (links to a folder that contains them): c",
    ]
    (many,) = LeftOut(Counter({f".{letter}": 1 for letter in "abcdefghijk"})).lines()
    assert many.endswith(".g, 1 .h, 3 with other suffixes")
