import json
import os
import shutil

import numpy as np
import pytest
from tests.counting import calls
from tests.data.sources.layouts import tree

from alexnet_lab.data.store.format import IMAGE_BYTES, META, npy_header
from alexnet_lab.data.store.prepare import prepare
from alexnet_lab.data.store.reading import open_store
from alexnet_lab.data.store.verify import verify
from alexnet_lab.errors import UserError


@pytest.fixture
def store(small_images, tmp_path):
    prepare(tree(tmp_path / "source", small_images), tmp_path / "imagenet", name="imagenet", workers=1)
    return tmp_path / "imagenet"


def cut(path, by=1000):
    os.truncate(path, path.stat().st_size - by)


def with_label(path, value):
    labels = np.load(path)
    labels[3] = value
    np.save(path, labels)


def with_byte(path, place, flipped):
    data = bytearray(path.read_bytes())
    data[place] ^= flipped
    path.write_bytes(data)


def with_meta(store, **changes):
    """Change the metadata; without a digest (unless it is among the changes), so that the change itself is checked."""
    changes = {"meta_sha256": ""} | changes
    path = store / META
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def with_checksums(store, name="mean_image.npy", without=None):
    checksums = json.loads((store / META).read_text())["checksums"]
    checksums[name] = checksums["mean_image.npy"]
    checksums.pop(without, None)
    with_meta(store, checksums=checksums)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda store: cut(store / "train/images.npy"),
            "train/images.npy has 2,358,424 bytes instead of the 2,359,424",
        ),
        (lambda store: cut(store / "val/labels.npy", 8), "val/labels.npy has"),
        (lambda store: (store / "val/images.npy").unlink(), "val/images.npy is missing"),
        (lambda store: with_label(store / "train/labels.npy", 3), r"label 3 is not in \[0, 3\)"),
        (lambda store: with_label(store / "val/labels.npy", -1), r"label -1 is not in \[0, 3\)"),
        (lambda store: with_meta(store, version=2), "is a store of version 2, but this program reads 1"),
        (lambda store: with_meta(store, name="imagenette"), "contains the store of imagenette, not of imagenet"),
        (lambda store: with_meta(store, counts={"train": 13, "val": 6}), "cannot hold 13 images"),
        (lambda store: with_meta(store, counts="many"), "meta.json is damaged"),
        (lambda store: with_meta(store, counts={"train": 12, "val": 0}), "meta.json is damaged .*val"),
        (lambda store: with_meta(store, counts={"train": 12, "../val": 6}), r"do not fit a store: \.\./val"),
        (lambda store: with_meta(store, mean=[0.5]), "meta.json is damaged .*mean"),
        (lambda store: with_meta(store, std=[0.5] * 4), "meta.json is damaged .*std"),
        (lambda store: with_meta(store, eigenvalues=[]), "meta.json is damaged .*eigenvalues"),
        (lambda store: with_meta(store, eigenvectors=[[1.0]]), "meta.json is damaged .*eigenvectors"),
        (lambda store: with_meta(store, covariance=[[1.0] * 3] * 2), "meta.json is damaged .*covariance"),
        (lambda store: with_checksums(store, "../outside.npy"), r"do not fit a store: \.\./outside.npy"),
        (lambda store: with_checksums(store, without="val/labels.npy"), "do not fit a store: val/labels.npy"),
        (lambda store: with_meta(store, meta_sha256="0" * 64), "meta.json is damaged: its checksum differs"),
        (lambda store: cut(store / META), "meta.json is damaged"),
        (lambda store: (store / META).write_bytes(b"\xff\xfe"), "meta.json cannot be read"),
        (lambda store: (store / META).unlink(), "has no meta.json; .*prepare.py data=imagenet source="),
        (lambda store: shutil.rmtree(store), r"(?s)there is no folder .*prepare.py data=imagenet source="),
        (lambda store: (store / META).write_text("[" * 100_000), "meta.json is damaged"),
        (lambda store: with_byte(store / "train/labels.npy", 20, 0x5A), "train/labels.npy is damaged"),
    ],
)
def test_damaged_store_is_reported_with_the_reason(store, damage, message):
    damage(store)
    with pytest.raises(UserError, match="(?s)" + message):
        open_store(store, "imagenet")


def test_verify_reports_file_and_block_of_a_flipped_byte(store):
    verify(store, "imagenet", workers=1)
    with (store / "val/images.npy").open("r+b") as file:
        file.seek(5000)
        byte = file.read(1)
        file.seek(5000)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(UserError, match=r"val/images.npy is damaged in block 0 \(bytes 0 to 1,179,775\)"):
        verify(store)


def test_changed_meta_is_detected_on_opening(store):
    digest = json.loads((store / META).read_text())["meta_sha256"]
    with_meta(store, mean=[0.5, 0.5, 0.5], meta_sha256=digest)
    with pytest.raises(UserError, match=r"meta\.json is damaged: its checksum differs"):
        open_store(store)


@pytest.mark.parametrize("workers", [0, -1])
def test_verify_needs_a_worker(store, workers):
    with pytest.raises(UserError, match=f"workers must be at least 1, got {workers}"):
        verify(store, workers=workers)


def test_verify_needs_a_digest_of_meta(store):
    with_meta(store, meta_sha256="")
    open_store(store)
    with pytest.raises(UserError, match=r"meta\.json is damaged"):
        verify(store)


def test_the_arrays_are_read_only(store):
    opened = open_store(store)
    for array in (opened.images("train"), opened.labels("train"), opened.mean_image()):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_imagenet_sized_store_opens_with_as_many_calls_as_a_small_one(store):
    of_a_small_one = calls(lambda: open_store(store, "imagenet").images("train"))
    count = 1_281_167
    labels = np.zeros(count, "<i8")
    (store / "train/labels.npy").write_bytes(npy_header("<i8", (count,)) + labels.tobytes())
    with (store / "train/images.npy").open("r+b") as file:
        file.write(npy_header("|u1", (count, 256, 256, 3)))
        file.truncate(file.tell() + count * IMAGE_BYTES)  # sparse: 252 GB without disk usage
    checksums = json.loads((store / META).read_text())["checksums"]
    for name in ("train/images.npy", "train/labels.npy"):
        checksums[name] = {"bytes": (store / name).stat().st_size, "blocks": ["0" * 64] * 3755}
    with_meta(store, counts={"train": count, "val": 6}, checksums=checksums)
    assert calls(lambda: open_store(store, "imagenet").images("train")) < 1.1 * of_a_small_one
    images = open_store(store, "imagenet").images("train")
    assert images.shape == (count, 256, 256, 3)
    assert not images[-1].any()
