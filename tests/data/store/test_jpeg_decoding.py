"""JPEG files are decoded by simplejpeg, and by Pillow where simplejpeg refuses them or is not installed."""

import hashlib
import io
import tomllib
import warnings
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from PIL import Image
from tests.data.store.conftest import encoded

from alexnet_lab.data.encoded import ImageFiles, StoredJpegs
from alexnet_lab.data.jpeg_markers import jpeg_shape
from alexnet_lab.data.sources.blobs import Blob
from alexnet_lab.data.store import images
from alexnet_lab.data.store.images import decode_jpeg, to_jpeg, to_square
from alexnet_lab.data.store.modes import Unreadable
from alexnet_lab.data.store.reading import Jpegs

COARSE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8))
PICTURE = COARSE.resize((333, 251), Image.Resampling.BICUBIC)
JPEG = encoded(PICTURE, "JPEG", quality=95)
END = b"\xff\xd9"
WITH_A_WARNING = JPEG[: len(JPEG) // 2] + END
EXIF = Image.Exif()
EXIF[0x0112] = 6

KINDS = {
    "4:4:4": JPEG,
    "4:2:2": encoded(PICTURE, "JPEG", subsampling="4:2:2"),
    "4:2:0": encoded(PICTURE, "JPEG", subsampling="4:2:0"),
    "progressive": encoded(PICTURE, "JPEG", progressive=True),
    "restart markers": encoded(PICTURE, "JPEG", restart_marker_blocks=3),
    "RGB, not YCbCr": encoded(PICTURE, "JPEG", keep_rgb=True),
    "grey": encoded(PICTURE.convert("L"), "JPEG"),
    "colour profile": encoded(PICTURE, "JPEG", icc_profile=b"x" * 70_000),
    "to be turned": encoded(PICTURE, "JPEG", exif=EXIF),
    "one pixel": encoded(PICTURE.resize((1, 1)), "JPEG"),
    "bytes missing": JPEG[: len(JPEG) // 2] + JPEG[len(JPEG) // 2 + 40 :],
    "half missing": WITH_A_WARNING,
    "more after the end": JPEG + b"junk" * 9,
}


def by_pillow(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("installed", [True, False], ids=["simplejpeg", "Pillow alone"])
def test_pixels_are_those_of_pillow(kind, installed, monkeypatch):
    if not installed:
        monkeypatch.setattr(images, "simplejpeg", None)
    pixels = decode_jpeg(KINDS[kind])
    assert np.array_equal(pixels, by_pillow(KINDS[kind]))
    assert pixels.shape == (*jpeg_shape(KINDS[kind])[:2], 3)
    assert pixels.flags.writeable  # torch warns about other arrays


def test_photographs_have_the_pixels_of_torchvision_0_29(photographs):
    """The sum was computed by `torchvision.io.decode_jpeg`, which is deprecated."""
    found = hashlib.sha256()
    for data in photographs[:40]:
        found.update(decode_jpeg(data).tobytes())
    assert found.hexdigest() == "3180cb16f983c81d0577b990dad87338c51c1ea28b5ea04e2a9da6a4ff9abfcf"


@pytest.mark.parametrize(
    ("machine", "installed"),
    [
        *((name, True) for name in ("x86_64", "AMD64", "aarch64", "arm64", "ARM64")),
        *((name, False) for name in ("ppc64le", "riscv64", "armv7l", "i686", "s390x")),
    ],
)
def test_simplejpeg_is_required_only_where_it_has_wheels(machine: str, installed: bool) -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    (marker,) = (one.marker for one in map(Requirement, project["dependencies"]) if one.name == "simplejpeg")
    assert marker.evaluate({"platform_machine": machine}) == installed


@pytest.mark.skipif(images.simplejpeg is None, reason="simplejpeg is not installed")
def test_only_a_file_with_a_warning_is_decoded_by_pillow(monkeypatch):
    calls = []
    monkeypatch.setattr(images, "decode_by_pillow", lambda data: calls.append(data) or by_pillow(data))
    for data in KINDS.values():
        decode_jpeg(data)
    assert calls == [WITH_A_WARNING]


def test_damaged_jpegs_print_nothing(capfd):
    decode_jpeg(WITH_A_WARNING)
    with pytest.raises(Unreadable):
        decode_jpeg(JPEG[:-900])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("data", [JPEG[:-900], JPEG[:40], b"text", b"", encoded(PICTURE, "PNG")])
def test_a_file_without_all_pixels_is_unreadable(data):
    with pytest.raises(Unreadable):
        decode_jpeg(data)


def test_reading_uses_nothing_deprecated(tmp_path):
    stored = np.frombuffer(to_jpeg(to_square(JPEG)), np.uint8)
    stored.flags.writeable = False
    path = tmp_path / "image.jpg"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for data in KINDS.values():
            path.write_bytes(data + END)
            ImageFiles([Blob(str(path), 0, len(data) + 2)]).window(0, 0, 0, 8, 8)
        StoredJpegs(Jpegs(stored, np.array([0, len(stored)]), path, "")).window(0, 0, 0, 8, 8)
