import errno
import io
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.data.sources.layouts import LAYOUTS, tree, write
from tests.data.store.conftest import DUMBBELL, SHARK, TENCH, as_imagenet, encoded

from alexnet_lab.data.store import disk, progress
from alexnet_lab.data.store.format import folder_to_make
from alexnet_lab.data.store.images import to_jpeg, to_square
from alexnet_lab.data.store.prepare import prepare
from alexnet_lab.data.store.reading import open_store
from alexnet_lab.data.store.verify import verify
from alexnet_lab.errors import UserError

QUICK = {"name": "imagenet", "workers": 1, "chunk_images": 4}


def test_the_layouts_of_real_photographs_give_byte_identical_stores(photographs, tmp_path, contents):
    images = as_imagenet(photographs[:24])
    stores = []
    for layout, build in LAYOUTS.items():
        prepare(build(tmp_path / layout, images), tmp_path / "stores" / layout, **QUICK)
        stores.append(contents(tmp_path / "stores" / layout))
    assert set(stores[0]) == {
        *("meta.json", "mean_image.npy", "train/images.npy", "train/labels.npy", "val/images.npy", "val/labels.npy")
    }
    assert stores[1:] == stores[:1] * (len(LAYOUTS) - 1)


@pytest.mark.parametrize("form", ["uint8", "jpeg"])
def test_store_contains_images_labels_and_statistics(photographs, tmp_path, form):
    images = as_imagenet(photographs[:24])
    meta = prepare(tree(tmp_path / "source", images), tmp_path / "store", format=form, **QUICK)
    store = open_store(tmp_path / "store", "imagenet")
    assert store.meta == meta == verify(tmp_path / "store")
    assert [(known.wnid, known.name) for known in meta.classes] == [
        (TENCH, "tench"),
        (SHARK, "great white shark"),
        (DUMBBELL, "dumbbell"),
    ]
    assert meta.counts == {"train": 16, "val": 8}
    for split in ("train", "val"):
        paths = sorted(path for path in images if path.startswith(split))
        squares = np.stack([to_square(images[path]) for path in paths])
        if form == "uint8":
            assert isinstance(store.images(split), np.memmap)
            assert np.array_equal(store.images(split), squares)
        else:
            assert [bytes(jpeg) for jpeg in store.jpegs(split)] == [to_jpeg(square) for square in squares]
        wnids = [meta.classes[label].wnid for label in store.labels(split)]
        assert wnids == [path.split("/")[1] for path in paths]
        if split == "train":
            assert np.allclose(store.mean_image(), squares.mean(axis=0), rtol=1e-6)
            assert np.allclose(meta.mean, squares.mean(axis=(0, 1, 2)) / 255)
            assert np.allclose(meta.covariance, np.cov(squares.reshape(-1, 3).T / 255, bias=True))


@pytest.mark.parametrize("form", ["uint8", "jpeg"])
def test_workers_and_chunks_do_not_change_a_byte(small_images, tmp_path, contents, form):
    source = tree(tmp_path / "source", small_images)
    prepare(source, tmp_path / "one", name="x", format=form, workers=1, chunk_images=5)
    prepare(source, tmp_path / "two", name="x", format=form, workers=2, chunk_images=2, save_seconds=0)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_unusual_files_are_converted_to_rgb(tmp_path):
    blocks = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    picture = Image.fromarray(blocks).resize((320, 240))
    exif = Image.Exif()
    exif[0x0112] = 6
    files = {
        "a_grey.JPEG": encoded(picture.convert("L")),
        "b_cmyk.JPEG": encoded(picture.convert("CMYK")),
        "c_rotated.JPEG": encoded(picture.rotate(90, expand=True), exif=exif),
        "d_png.JPEG": encoded(picture, "PNG"),
        "e.JPEG": encoded(picture),
    }
    prepare(write(tmp_path / "source" / TENCH, files).parent, tmp_path / "store", **QUICK)
    found = open_store(tmp_path / "store").images("train").astype(int)
    assert found.shape == (5, 256, 256, 3)
    for row, name in enumerate(files):
        reference = found[3] @ [[0.299], [0.587], [0.114]] if "grey" in name else found[3]
        assert np.abs(found[row] - reference).mean() < 4, name


@pytest.fixture
def damaged(small_images):
    """Images, three of them unreadable."""
    images = dict(small_images)
    paths = sorted(images)
    for path, data in ((paths[2], images[paths[2]][:-40]), (paths[5], b"text"), (paths[-1], b"")):
        images[path] = data
    return images, [paths[2], paths[5], paths[-1]]


@pytest.mark.parametrize("workers", [1, 2])
def test_unreadable_files_are_all_listed_and_there_is_no_store(damaged, tmp_path, workers):
    images, bad = damaged
    with pytest.raises(UserError, match="3 image files are unreadable; no store was made") as error:
        prepare(tree(tmp_path / "source", images), tmp_path / "store", **QUICK | {"workers": workers})
    listing = (tmp_path / "store.unreadable.txt").read_text()
    for path in bad:
        assert path in str(error.value)
        assert path in listing
    assert not (tmp_path / "store").exists()
    with pytest.raises(UserError, match=r"there is no (store|folder)"):
        open_store(tmp_path / "store")


@pytest.mark.parametrize("form", ["uint8", "jpeg"])
def test_skipped_files_are_left_out_and_recorded(damaged, tmp_path, contents, form):
    images, bad = damaged
    source = tree(tmp_path / "source", images)
    with pytest.raises(UserError, match="on_error=skip"):
        prepare(source, tmp_path / "after", format=form, **QUICK)
    prepare(source, tmp_path / "after", format=form, on_error="skip", **QUICK)  # continues
    meta = prepare(source, tmp_path / "store", format=form, on_error="skip", **QUICK)
    assert contents(tmp_path / "after") == contents(tmp_path / "store")
    assert not (tmp_path / "after.unreadable.txt").exists()
    assert [skipped.file for skipped in meta.skipped] == bad
    assert sum(meta.counts.values()) == len(images) - 3
    left = tree(tmp_path / "left", {path: data for path, data in images.items() if path not in bad})
    other = prepare(left, tmp_path / "other", format=form, **QUICK)
    assert (other.mean, other.checksums) == (meta.mean, meta.checksums)


def test_store_without_unreadable_files_is_accepted_only_with_skip(damaged, tmp_path, caplog):
    images, bad = damaged
    source = tree(tmp_path / "source", images)
    with caplog.at_level(logging.INFO):
        meta = prepare(source, tmp_path / "store", on_error="skip", **QUICK)
        assert prepare(source, tmp_path / "store", on_error="skip", **QUICK) == meta
    assert caplog.text.count("3 unreadable images are left out") == 2
    with pytest.raises(UserError, match=f"a store without 3 images that were unreadable, the first: {bad[0]}; .*skip"):
        prepare(source, tmp_path / "store", **QUICK)


def test_broken_links_and_fifos_are_unreadable_files(small_images, tmp_path):
    source = tree(tmp_path / "source", small_images)
    (source / "train" / TENCH / "a.JPEG").symlink_to(tmp_path / "nowhere")
    os.mkfifo(source / "train" / TENCH / "b.JPEG")
    with pytest.raises(UserError, match=f"(?s)2 image files are unreadable.*{TENCH}/a.JPEG: .*No such file"):
        prepare(source, tmp_path / "store", **QUICK)
    meta = prepare(source, tmp_path / "store", on_error="skip", **QUICK)
    assert [skipped.file for skipped in meta.skipped] == [f"train/{TENCH}/a.JPEG", f"train/{TENCH}/b.JPEG"]
    assert meta.counts == {"train": 12, "val": 6}


def test_renamed_files_survive_a_power_failure(small_images, tmp_path, monkeypatch):
    """A file's new name is on the disk once its folder is flushed."""
    done, fsync, rename = [], os.fsync, os.rename
    monkeypatch.setattr(os, "fsync", lambda file: (done.append(os.readlink(f"/proc/self/fd/{file}")), fsync(file)))
    monkeypatch.setattr(os, "rename", lambda old, new: (done.append("renamed"), rename(old, new)))
    prepare(tree(tmp_path / "source", small_images), tmp_path / "store", **QUICK)
    partial = str(tmp_path / "store.partial")
    assert [re.sub(r"\.[0-9a-f]{8}\.", ".", name) for name in done[-4:]] == [
        f"{partial}/.meta.json.writing",
        partial,
        "renamed",
        str(tmp_path),
    ]
    assert {f"{partial}/train", f"{partial}/val"} <= set(done)


def test_failed_preparation_restarts_after_files_were_replaced(small_images, damaged, tmp_path, contents):
    with pytest.raises(UserError, match="unreadable"):
        prepare(tree(tmp_path / "source", damaged[0]), tmp_path / "store", **QUICK)
    prepare(tree(tmp_path / "source", small_images), tmp_path / "store", **QUICK)
    prepare(tree(tmp_path / "whole", small_images), tmp_path / "other", **QUICK)
    assert contents(tmp_path / "store") == contents(tmp_path / "other")


def test_failed_preparation_restarts_after_files_were_deleted(small_images, damaged, tmp_path, contents):
    images, bad = damaged[0], damaged[1]
    with pytest.raises(UserError, match="unreadable"):
        prepare(tree(tmp_path / "source", images), tmp_path / "store", **QUICK)
    for name in bad:
        (tmp_path / "source" / name).unlink()
    meta = prepare(tmp_path / "source", tmp_path / "store", **QUICK)
    assert sum(meta.counts.values()) == len(images) - len(bad)


def test_store_can_be_on_another_disk_behind_a_link(small_images, tmp_path, contents):
    source = tree(tmp_path / "source", small_images)
    (tmp_path / "disk" / "made").mkdir(parents=True)
    for name in ("made", "new"):
        (tmp_path / f"link_{name}").symlink_to(tmp_path / "disk" / name)
        prepare(source, tmp_path / f"link_{name}", **QUICK)
    assert sorted(path.name for path in (tmp_path / "disk").iterdir()) == ["made", "new"]
    assert contents(tmp_path / "disk" / "made") == contents(tmp_path / "link_new")


def test_a_mount_point_is_refused():
    with pytest.raises(UserError, match=r"stream=/ is the mount point of a disk; choose a folder in it: stream=/NAME"):
        folder_to_make(Path("/"), "stream")


def test_reason_does_not_contain_the_location_of_the_source(small_images, tmp_path):
    source = tree(tmp_path / "source", small_images)
    (source / "train" / TENCH / "a.JPEG").symlink_to(tmp_path / "nowhere")
    (skipped,) = prepare(source, tmp_path / "store", on_error="skip", **QUICK).skipped
    assert skipped.reason == "[Errno 2] No such file or directory: 'a.JPEG'"


def test_finished_store_is_unchanged(small_images, tmp_path, contents):
    source = tree(tmp_path / "source", small_images)
    meta = prepare(source, tmp_path / "store", **QUICK)
    (tmp_path / "store" / progress.RECORD).touch()  # as if killed after the renaming
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*.npy")}
    assert prepare(source, tmp_path / "store", **QUICK) == meta
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*.npy")}
    assert progress.RECORD not in contents(tmp_path / "store")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "jpeg"}, "contains a store of format=uint8; delete it first"),
        ({"name": "other"}, "contains the store of imagenet, not of other"),
        ({"num_classes": 1000}, "data.num_classes is 1000, the source has training images of 3"),
        ({"workers": 0}, "workers must be at least 1, got 0"),
    ],
)
def test_a_finished_store_is_never_overwritten(small_images, tmp_path, contents, changes, message):
    source = tree(tmp_path / "source", small_images)
    prepare(source, tmp_path / "store", **QUICK)
    before = contents(tmp_path)
    with pytest.raises(UserError, match=message):
        prepare(source, tmp_path / "store", **QUICK | changes)
    assert contents(tmp_path) == before


def test_folder_with_other_files_or_images_is_refused(small_images, tmp_path):
    source = tree(tmp_path / "source", small_images)
    with pytest.raises(UserError, match="is not empty and contains something else"):
        prepare(source, source, **QUICK)
    prepare(source, tmp_path / "store", **QUICK)
    next((source / "train" / TENCH).iterdir()).unlink()
    with pytest.raises(UserError, match="made of other images"):
        prepare(source, tmp_path / "store", **QUICK)


def test_partial_store_with_different_settings_is_refused(small_images, tmp_path, monkeypatch):
    source = tree(tmp_path / "source", small_images)
    with monkeypatch.context() as patch:
        patch.setattr("alexnet_lab.data.store.prepare._finish", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepare(source, tmp_path / "store", **QUICK)
    with pytest.raises(UserError, match=r"store.partial was started with other settings \(different: format\)"):
        prepare(source, tmp_path / "store", format="jpeg", **QUICK)
    with pytest.raises(UserError, match=r"store\.partial is unfinished; repeat the command that started it"):
        open_store(tmp_path / "store")
    prepare(source, tmp_path / "store", **QUICK)


def test_second_concurrent_preparation_is_refused(small_images, tmp_path):
    source = tree(tmp_path / "source", small_images)
    with (
        progress.locked(tmp_path / "store.partial"),
        pytest.raises(UserError, match=r"store\.partial is being written by"),
    ):
        prepare(source, tmp_path / "store", **QUICK)


def test_too_small_disk_is_reported_before_writing(small_images, tmp_path, monkeypatch, caplog):
    source = tree(tmp_path / "source", small_images)
    full = shutil.disk_usage(tmp_path)._replace(free=10**6)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: full)
    with caplog.at_level(logging.INFO), pytest.raises(UserError, match=r"needs 0.02 GB of disk, .* has 0.00 GB free"):
        prepare(source, tmp_path / "new" / "store", **QUICK)
    assert "images: 12 train, 6 val, of 3 classes" in caplog.text
    assert "disk: 0.02 GB needed, 0.00 GB free on" in caplog.text
    assert not (tmp_path / "new").exists()


def test_full_disk_is_reported_and_the_same_command_continues(small_images, tmp_path, monkeypatch):
    source = tree(tmp_path / "source", small_images)
    (tmp_path / "store").mkdir()  # an empty folder is not a store and does not matter
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
        with pytest.raises(UserError, match=r"the disk of .*store\.partial is full"):
            prepare(source, tmp_path / "store", **QUICK)
    assert prepare(source, tmp_path / "store", **QUICK).counts == {"train": 12, "val": 6}


def test_progress_shows_speed_and_remaining_time_on_standard_error(small_images, tmp_path, capsys):
    prepare(tree(tmp_path / "source", small_images), tmp_path / "store", **QUICK)
    shown = capsys.readouterr()
    assert "18/18" in shown.err
    assert " images/s" in shown.err
    assert shown.out == ""


def test_meta_describes_the_store_in_plain_json(small_images, tmp_path):
    prepare(tree(tmp_path / "source", small_images), tmp_path / "store", **QUICK)
    meta = json.loads((tmp_path / "store" / "meta.json").read_text())
    assert meta["version"] == 1
    assert meta["counts"] == {"train": 12, "val": 6}
    assert meta["classes"][0] == {"wnid": TENCH, "name": "tench"}
    assert set(meta["software"]) == {"pillow", "libjpeg"}
    assert np.load(io.BytesIO((tmp_path / "store" / "mean_image.npy").read_bytes())).dtype == np.float32


def test_the_workers_import_no_torch():
    names = ("converting", "prepare", "verify", "reading")
    code = "".join(f"import alexnet_lab.data.store.{name}\n" for name in names)
    code += "import sys; print('torch' in sys.modules)"
    environment = {"PYTHONPATH": str(Path("src").absolute())}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout == "False\n", done.stderr
