import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

TENCH, SHARK, DUMBBELL = "n01440764", "n01484850", "n03255030"


def encoded(image: Image.Image, form: str = "JPEG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


@pytest.fixture(scope="session")
def photographs() -> list[bytes]:
    """All 400 full-size ImageNet photographs."""
    folder = os.environ.get("ALEXNET_LAB_IMAGES")
    if not folder:
        pytest.skip("needs real images: set ALEXNET_LAB_IMAGES to the folder of imagenet_fullsize_400.tar")
    with tarfile.open(Path(folder) / "imagenet_fullsize_400.tar") as tar:
        return [tar.extractfile(member).read() for member in tar.getmembers() if member.isreg()]


def as_imagenet(files: list[bytes]) -> dict[str, bytes]:
    """Two thirds of the files as training images of three classes, the rest as validation images, by path."""
    images = {}
    for number, data in enumerate(files):
        wnid = (TENCH, SHARK, DUMBBELL)[number // 3 % 3]
        if number % 3 == 2:
            images[f"val/{wnid}/ILSVRC2012_val_{number // 3 + 1:08}.JPEG"] = data
        else:
            images[f"train/{wnid}/{wnid}_{number}.JPEG"] = data
    return images


@pytest.fixture(scope="session")
def small_images() -> dict[str, bytes]:
    """18 small images made from random numbers."""
    random = np.random.default_rng(0)
    sizes = [(40, 30), (30, 45), (64, 64)]
    pixels = [random.integers(0, 256, (*sizes[number % 3], 3), dtype=np.uint8) for number in range(18)]
    return as_imagenet([encoded(Image.fromarray(image)) for image in pixels])


@pytest.fixture
def contents():
    """The bytes of every file in a folder, by path."""

    def read(folder: Path) -> dict[str, bytes]:
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    return read
