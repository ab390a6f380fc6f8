"""Unreadable image files: headers are checked before every training, whole files with `data.unreadable=skip`."""

import io
import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from photographs_for_tests import WITHOUT_STATISTICS, module, write_tree
from PIL import Image
from tests.data.sources.layouts import tar_bytes

from alexnet_lab.data import readable
from alexnet_lab.data.encoded import ImageFiles
from alexnet_lab.data.jpeg_markers import is_cut
from alexnet_lab.data.sources.blobs import Blob
from alexnet_lab.errors import UserError


def encoded(kind="JPEG", mode="RGB", size=(64, 48), **options):
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(file, kind, **options)
    return file.getvalue()


JPEG, PNG = encoded(), encoded("PNG")
EXIF = Image.Exif()
EXIF[0x010E] = "x" * 6000


def crc_of(data, chunk):
    """`data` with the checksum of a PNG's chunk damaged."""
    place = data.index(chunk)
    end = place + 4 + int.from_bytes(data[place - 4 : place], "big")
    return data[:end] + bytes([data[end] ^ 1]) + data[end + 1 :]


def sized(width, height):
    """A JPEG whose header states this size."""
    place = JPEG.index(b"\xff\xc0") + 5
    return JPEG[:place] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + JPEG[place + 4 :]


READABLE = {
    "plain.jpg": JPEG,
    "long_header.jpg": encoded(exif=EXIF),
    "progressive.jpg": encoded(progressive=True),
    "cmyk.jpg": encoded(mode="CMYK"),
    "grey.jpg": encoded(mode="L"),
    "one_pixel.jpg": encoded(size=(1, 1)),
    "narrow.png": encoded("PNG", size=(1, 200)),
    "palette.gif": encoded("GIF", "P"),
    "png_called.jpg": PNG,
    "whole.tiff": encoded("TIFF"),
    "more_behind.jpg": JPEG + b"\xff\xda junk" * 9,
}
WITHOUT_HEADER = {
    "empty.jpg": b"",
    "text.jpg": b"this is text",
    "page.jpg": b"<!DOCTYPE html><html>404</html>",
    "cut_in_header.jpg": JPEG[:100],
    "cut_in_header.png": PNG[:20],
    "zeros.jpg": bytes(4000),
    "bomb.jpg": sized(65535, 65535),
    "damaged_header.png": crc_of(PNG, b"IHDR"),
    "cut.webp": encoded("WEBP")[:-300],
}
CUT_LATER = {
    "half.jpg": JPEG[: len(JPEG) // 2],
    "half_then_zeros.jpg": JPEG[: len(JPEG) // 2] + bytes(len(JPEG) // 2),
    "last_bytes.jpg": JPEG[:-60],
    "half_progressive.jpg": encoded(progressive=True)[:-900],
    "half.png": PNG[: len(PNG) // 2],
    "flipped.png": PNG[:-200] + bytes([PNG[-200] ^ 0x55]) + PNG[-199:],
    "half.gif": encoded("GIF", "P")[:-500],
    "too_narrow.png": encoded("PNG", size=(1, 9000)),
}


@pytest.mark.parametrize(
    ("data", "cut"),
    [
        (JPEG, False),
        (JPEG + bytes(99), False),
        (JPEG[:-2], True),
        (encoded(exif=b"Exif\0\0" + JPEG)[:-2] + bytes(99), True),  # the end of a thumbnail is not the end of the image
        (JPEG[:100], False),
        (b"\xff\xd8\xff", False),
        (PNG, False),
    ],
)
def test_a_jpeg_without_an_end_is_cut(data, cut):
    assert is_cut(data) == cut


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "alexnet_lab" / "readable"


@pytest.fixture
def files(tmp_path):
    """A folder of readable and unreadable files, and the `images` argument of the checks."""
    folder = tmp_path / "files"
    folder.mkdir()
    for name, data in {**READABLE, **WITHOUT_HEADER, **CUT_LATER}.items():
        (folder / name).write_bytes(data)
    (folder / "nowhere.jpg").symlink_to("missing")
    (folder / "folder.jpg").mkdir()
    return folder


def images(folder):
    return [(path.name, Blob(str(path), 0, path.stat().st_size if path.exists() else 0)) for path in folder.iterdir()]


MISSING = {"nowhere.jpg", "folder.jpg"}


def test_files_without_a_header_are_found_with_the_reason(files):
    found = dict(readable.without_header(images(files)))
    assert found.keys() == {*WITHOUT_HEADER, *MISSING}
    assert found["empty.jpg"] == "the file is empty"
    assert "the content is a web page" in found["page.jpg"]
    assert found["nowhere.jpg"] == "No such file or directory"
    assert "cut off in its header" in found["cut_in_header.jpg"]
    assert "65535 x 65535" in found["bomb.jpg"]


def test_undecodable_files_are_those_that_training_would_fail_on(files, cache):
    found = {name for name, _ in readable.undecodable(files, images(files))}
    assert found == {*WITHOUT_HEADER, *CUT_LATER, *MISSING}
    for name, blob in images(files):
        try:
            ImageFiles([blob]).window(0, 0, 0, 8, 8)
            assert name not in found
        except UserError:
            assert name in found


def decoded(folder, monkeypatch):
    """The names of the decoded files, and of the unreadable ones."""
    names = []
    with monkeypatch.context() as patch:
        fault = readable._fault
        patch.setattr(readable, "_fault", lambda blob: (names.append(Path(blob.file).name), fault(blob))[1])
        found = readable.undecodable(folder, images(folder))
    return sorted(names), sorted(name for name, _ in found)


def test_only_changed_or_unreadable_files_are_decoded_again(files, cache, monkeypatch):
    bad = sorted({*WITHOUT_HEADER, *CUT_LATER, *MISSING})
    assert decoded(files, monkeypatch) == (sorted(path.name for path in files.iterdir()), bad)
    (kept,) = cache.iterdir()
    assert len(np.load(kept)) == len(READABLE)
    assert decoded(files, monkeypatch) == (bad, bad)
    (files / "grey.jpg").write_bytes(JPEG[:-50])
    (files / "text.jpg").write_bytes(JPEG)
    os.utime(files / "cmyk.jpg", ns=(0, 0))
    again, found = decoded(files, monkeypatch)
    assert again == sorted({*bad, "grey.jpg", "cmyk.jpg"})
    assert found == sorted({*bad, "grey.jpg"} - {"text.jpg"})
    kept.write_bytes(b"damaged")
    assert decoded(files, monkeypatch)[1] == found
    assert [path.name for path in cache.iterdir()] == [kept.name]


def test_unwritable_cache_does_not_stop_the_check(files, tmp_path, monkeypatch, caplog):
    (tmp_path / "a_file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a_file"))
    assert len(readable.undecodable(files, images(files))) == len({*WITHOUT_HEADER, *CUT_LATER, *MISSING})
    assert "the next start decodes all images again" in caplog.text


def test_headers_are_checked_for_a_limited_time(files, monkeypatch, caplog):
    monkeypatch.setattr(readable, "HEADER_SECONDS", -1.0)
    with caplog.at_level(logging.INFO):
        assert readable.without_header(images(files)) == []
    assert f"checked 0 of {len(images(files))} image headers" in caplog.text


@pytest.fixture
def damaged(tmp_path):
    """A tree of images with three unreadable files: their names, the tree, and a tree without these files."""
    for name in ("whole", "without"):
        write_tree(tmp_path / name)
    bad = ["train/n01440764/003.JPEG", "train/n02102040/007.JPEG", "val/n03888257/005.JPEG"]
    for name in bad:
        os.truncate(tmp_path / "whole" / name, 2000)
        (tmp_path / "without" / name).unlink()
    return bad, tmp_path / "whole", tmp_path / "without"


def epoch(data, number=1):
    data.prepare_data()
    loader = data.train_dataloader()
    loader.batch_sampler.sampler.set_epoch(number)
    return [*loader, *data.val_dataloader(), *data.test_dataloader()]


def same(one, two):
    return len(one) == len(two) and all(
        torch.equal(a.images, b.images)
        and torch.equal(a.labels, b.labels)
        and torch.equal(a.samples, b.samples)
        and all(torch.equal(c, d) for c, d in zip(a.draws, b.draws, strict=True) if c is not None)
        for a, b in zip(one, two, strict=True)
    )


@pytest.mark.parametrize("val_size", [0, 6])
def test_skipping_files_equals_a_folder_without_them(damaged, cache, caplog, val_size):
    """Order, crops and held-out images of the other files equal those of a folder without the skipped files."""
    bad, whole, without = damaged
    settings = WITHOUT_STATISTICS | {"val_size": val_size}
    skipping = module(whole, unreadable="skip", **settings)
    assert same(epoch(skipping), epoch(module(without, **settings)))
    assert "left out: 3 unreadable images" in caplog.text
    assert all(name in caplog.text for name in bad)


def test_given_names_are_left_out_without_decoding(damaged, cache, monkeypatch):
    bad, whole, without = damaged
    monkeypatch.setattr(readable, "_fault", lambda _: 1 / 0)
    data = module(whole, unreadable="skip", **WITHOUT_STATISTICS)
    data.dataset.images.leave_out([*bad, "train/n01440764/gone.JPEG"])
    assert same(epoch(data), epoch(module(without, **WITHOUT_STATISTICS)))


def test_file_that_becomes_unreadable_is_reported_by_name(damaged, cache):
    _, whole, _ = damaged
    data = module(whole, unreadable="skip", **WITHOUT_STATISTICS)
    data.prepare_data()
    os.truncate(whole / "train/n01440764/000.JPEG", 2000)
    with pytest.raises(UserError, match=r"n01440764/000\.JPEG cannot be read"):
        epoch(data)


def test_class_without_readable_images_is_refused(damaged, cache):
    _, whole, _ = damaged
    for path in (whole / "train/n01440764").iterdir():
        path.write_bytes(b"text")
    with pytest.raises(UserError, match=r"data\.unreadable=skip: no image of train/n01440764 can be read"):
        module(whole, unreadable="skip", **WITHOUT_STATISTICS).prepare_data()


def test_files_without_a_header_are_refused_before_training(damaged):
    _, whole, _ = damaged
    for place in range(12):
        (whole / "train" / "n01440764" / f"empty{place:02}.JPEG").touch()
    data = module(whole, **WITHOUT_STATISTICS)
    with pytest.raises(UserError) as error:
        data.prepare_data()
    lines = str(error.value).split("\n")
    assert lines[0] == f"12 of 42 image files in {whole} cannot be read:"
    assert lines[1] == "  train/n01440764/empty00.JPEG: the file is empty"
    assert lines[-2:] == ["  and 2 more", "replace or remove them, or train without them: data.unreadable=skip"]


def test_unreadable_files_are_named_by_their_paths_and_skipped_only_if_each_class_has_others(tmp_path):
    for number, (kind, data) in enumerate([("a", JPEG), ("b", b"text"), ("b", b"text")] * 3):
        (tmp_path / kind).mkdir(exist_ok=True)
        (tmp_path / kind / f"{number}.jpg").write_bytes(data)
    for readable_file, last in ((None, "replace or remove them"), ("b/1.jpg", "data.unreadable=skip")):
        if readable_file:
            (tmp_path / readable_file).write_bytes(JPEG)
        with pytest.raises(UserError) as error:
            module(tmp_path, **WITHOUT_STATISTICS | {"val_size": 2, "num_classes": 2}).prepare_data()
        lines = str(error.value).split("\n")
        assert lines[1].startswith("  b/")
        assert lines[-1].endswith(last)


def test_headers_are_read_once(damaged, monkeypatch):
    _, whole, _ = damaged
    data, calls = module(whole, **WITHOUT_STATISTICS), []
    monkeypatch.setattr("alexnet_lab.data.stored.without_header", lambda images: calls.append(len(images)) or [])
    for _ in range(3):
        data.prepare_data()
    assert calls == [30]


def test_images_in_an_archive_are_skipped_too(damaged, cache, tmp_path):
    _, whole, without = damaged
    tree = {str(path.relative_to(whole)): path.read_bytes() for path in whole.rglob("*.JPEG")}
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "all.tar").write_bytes(tar_bytes(tree))
    skipping = module(tmp_path / "folder", unreadable="skip", **WITHOUT_STATISTICS)
    assert same(epoch(skipping), epoch(module(without, **WITHOUT_STATISTICS)))
    archive = tmp_path / "folder" / "all.tar"
    with pytest.raises(UserError, match=rf"train/n0\d+/\d+\.JPEG in {archive} cannot be read: the file is cut off"):
        epoch(module(archive, **WITHOUT_STATISTICS))


def test_a_store_has_nothing_to_skip(stores, cache):
    data = module(stores["jpeg"], unreadable="skip")
    data.prepare_data()
    assert not data.dataset.images.skips_unreadable
    assert data.dataset.images.find_unreadable() == []
    assert not cache.exists()
