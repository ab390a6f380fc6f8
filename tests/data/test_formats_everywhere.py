"""The same image has the same pixels in a store, in training from a folder or a zip, and in predict."""

import hashlib
import json
import logging
from pathlib import Path

import numpy as np
import pytest
from photographs_for_tests import WITHOUT_STATISTICS, module
from tests.data.image_formats import EXAMPLES, TRANSPARENT
from tests.data.sources.layouts import write, zip_bytes

from alexnet_lab.data.preprocessing import Preprocessing
from alexnet_lab.data.sources.given import given_images
from alexnet_lab.data.sources.samples import find_samples
from alexnet_lab.data.store.prepare import prepare
from alexnet_lab.data.store.reading import open_store

# Every suffix here is `.image`: the contents determine the formats.
FILES = {
    f"{split}/{name}/{example}.image": EXAMPLES[example].data
    for split in ("train", "val")
    for name, examples in (("clear", TRANSPARENT), ("opaque", EXAMPLES.keys() - TRANSPARENT.keys()))
    for example in examples
    if not example.endswith("TGA") and (split == "train" or example.endswith("PNG"))
}
SETTINGS = {"num_classes": 2, "transparency": "white"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    others = {"train/clear/note.txt": b"x", "train/clear/IMG_1.HEIC": b"x", "train/clear/README": b"Read me first"}
    return write(tmp_path_factory.mktemp("formats") / "pictures", {**FILES, **others})


@pytest.fixture(scope="module")
def archive(folder) -> Path:
    path = folder.with_suffix(".zip")
    path.write_bytes(zip_bytes({f"top/{name}": data for name, data in FILES.items()}))
    return path


@pytest.fixture(scope="module")
def store(folder) -> Path:
    prepare(folder, folder.with_name("store"), name="imagenette", workers=1)
    return folder.with_name("store")


def pixels_of(place: Path, **changes) -> np.ndarray:
    """uint8 [N, 256, 256, 3], the training images as training from `place` reads them."""
    images = module(place, **SETTINGS | WITHOUT_STATISTICS | changes).dataset.split("train").images
    return np.stack([images.window(row, 0, 0, 256, 256).copy() for row in range(images.shape[0])])


def predicted(place: Path, facts: dict) -> np.ndarray:
    """[N, 256, 256, 3], the images of `place` as predict reads them."""
    preprocessing = Preprocessing.of(facts)
    images = [image for image in given_images([str(place)]) if "/train/" in image.path]
    return np.stack([preprocessing.decode(image.blob.read()).transpose(1, 2, 0) for image in images])


def is_jpeg(name: str) -> bool:
    return "JPEG." in name or "MPO" in name


def test_store_training_and_predict_see_the_same_pixels(folder, archive, store) -> None:
    stored = open_store(store).images("train")
    names = sorted(name for name in FILES if name.startswith("train"))
    facts = module(store, **SETTINGS | WITHOUT_STATISTICS).preprocessing.facts()
    assert facts["transparency"] == "white"
    for place in (folder, archive):
        assert np.array_equal(predicted(place, facts), stored)
        seen = pixels_of(place)
        assert np.abs(seen.astype(int) - stored).max() <= 1  # for a JPEG, by a different resize
        for name, image, expected in zip(names, seen, stored, strict=True):
            assert is_jpeg(name) or np.array_equal(image, expected)
    assert np.array_equal(pixels_of(store, transparency=None), stored)


def test_zip_gives_several_processes_the_store_of_the_folder(archive, store) -> None:
    prepare(archive, archive.with_name("unzipped"), name="imagenette", workers=2, chunk_images=16)
    digests = {path.relative_to(store): hashlib.sha256(path.read_bytes()).digest() for path in store.rglob("*.*")}
    for path, digest in digests.items():
        assert hashlib.sha256((archive.with_name("unzipped") / path).read_bytes()).digest() == digest


def test_ignored_files_are_counted_by_prepare_and_training(folder, caplog) -> None:
    lines = find_samples([folder]).remarks
    assert lines == (
        "left out (not images that Pillow can decode): 1 without suffix, 1 .heic",
        "left out (by their names, not opened): 1 .txt",
    )
    with caplog.at_level(logging.INFO):
        prepare(folder, folder.with_name("another"), name="imagenette", workers=1)
        assert [caplog.text.count(line) for line in lines] == [1, 1]
        caplog.clear()
        module(folder, **SETTINGS).prepare_data()
        assert [caplog.text.count(line) for line in lines] == [1, 1]


def as_before(store: Path, target: Path) -> Path:
    """A store of the version that did not yet record transparency."""
    write(target, {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*.npy")})
    meta = json.loads((store / "meta.json").read_text())
    del meta["transparency"]
    meta["meta_sha256"] = ""
    meta["meta_sha256"] = hashlib.sha256(
        json.dumps(meta, separators=(",", ":"), ensure_ascii=False).encode()
    ).hexdigest()
    (target / "meta.json").write_text(json.dumps(meta, indent=1) + "\n")
    return target


def test_older_store_is_read_and_its_networks_ignore_transparency(folder, store, tmp_path) -> None:
    older = as_before(store, tmp_path / "older")
    meta = prepare(folder, older, name="imagenette", workers=1)  # unchanged
    assert meta.transparency is None
    facts = module(older, **SETTINGS | WITHOUT_STATISTICS).preprocessing.facts()
    assert "transparency" not in facts
    data = TRANSPARENT["rgba.PNG"].data
    assert np.array_equal(Preprocessing.of(facts).decode(data).transpose(1, 2, 0), EXAMPLES["rgb.PNG"].pixels)
    new = Preprocessing.of({**facts, "transparency": "white"})
    assert np.array_equal(new.decode(data).transpose(1, 2, 0), TRANSPARENT["rgba.PNG"].pixels)


def test_configuration_without_the_setting_ignores_transparency(tmp_path) -> None:
    files = {f"{split}/{name}/x.png": TRANSPARENT["rgba.PNG"].data for split in ("train", "val") for name in "ab"}
    data = module(write(tmp_path, files), num_classes=2, **WITHOUT_STATISTICS)
    assert "transparency" not in data.preprocessing.facts()
    found = data.dataset.split("train").images.window(0, 0, 0, 256, 256)
    assert np.array_equal(found, EXAMPLES["rgb.PNG"].pixels)


def test_grey_network_composes_transparency_over_white() -> None:
    facts = {"image_size": 28, "resize": "bilinear", "channels": 1, "mean": [0.0], "std": [1.0], "classes": ["a"]}
    grey = Preprocessing.of({**facts, "transparency": "white"}).decode(TRANSPARENT["la.PNG"].data)
    assert np.array_equal(grey[0], TRANSPARENT["la.PNG"].pixels)
    assert np.array_equal(Preprocessing.of(facts).decode(TRANSPARENT["la.PNG"].data)[0], EXAMPLES["grey.PNG"].pixels)
