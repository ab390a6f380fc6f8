import logging

import numpy as np
import pytest
from PIL import Image

from alexnet_lab.commands.prepare import prepare
from alexnet_lab.data import fashion_mnist_files
from alexnet_lab.errors import UserError

needs_package = pytest.mark.skipif(
    not fashion_mnist_files.SYSTEM_FOLDER.is_dir(), reason=f"needs Debian's package {fashion_mnist_files.PACKAGE}"
)


@needs_package
def test_fashion_mnist_is_counted_and_located(composed, capsys, tmp_path) -> None:
    prepare(composed("prepare", "data=fashion_mnist", f"data.dir={tmp_path}"))
    shown = capsys.readouterr().out
    for split, images in (("train", "55,000"), ("val", "5,000"), ("test", "10,000")):
        assert any(split in line and f"{images} images" in line for line in shown.splitlines())
    assert "ankle boot" in shown
    assert f"t10k-labels-idx1-ubyte: {fashion_mnist_files.SYSTEM_FOLDER}" in shown


def test_damaged_file_is_named(composed, tmp_path) -> None:
    for name in fashion_mnist_files.FILES:
        (tmp_path / name).write_bytes(b"damaged")
    with pytest.raises(UserError, match=f"{tmp_path}.* is damaged"):
        prepare(composed("prepare", f"data.dir={tmp_path}"))


def test_synthetic_images_need_no_preparation(composed, capsys) -> None:
    prepare(composed("prepare", "data=synthetic", "data.num_classes=3", "model=lenet"))
    shown = capsys.readouterr().out
    assert "512 images, stored as 3 x 32 x 32" in shown
    assert "3: class 0, class 1, class 2" in shown
    assert "nothing to prepare" in shown


def test_wrong_value_is_refused(composed) -> None:
    with pytest.raises(UserError, match=r"data.num_classes of Fashion-MNIST is 10, got 7"):
        prepare(composed("prepare", "data.num_classes=7"))


def test_empty_source_is_refused(composed, tmp_path) -> None:
    with pytest.raises(UserError, match="source is empty; name a folder, or a tar or zip archive"):
        prepare(composed("prepare", "data=image_folder", "source=", f"data.dir={tmp_path / 'store'}"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("format=png", "format: 'png' does not fit: Input should be 'uint8' or 'jpeg'"),
        ("on_error=[]", r"on_error: \[\] does not fit"),
        ("workers=many", "workers: 'many' does not fit: Input should be a valid integer"),
        ("verify=perhaps", "verify: 'perhaps' does not fit: Input should be a valid boolean"),
        ("stream=3", "stream: 3 does not fit: Input should be a valid string"),
    ],
)
def test_wrong_value_is_reported_with_the_typed_key(composed, tmp_path, override, message) -> None:
    options = ("data=image_folder", f"source={tmp_path}", f"data.dir={tmp_path}/store", override)
    with pytest.raises(UserError, match=f"^{message}"):
        prepare(composed("prepare", *options))
    assert not (tmp_path / "store").exists()


def test_folder_of_a_stream_is_checked_before_the_store_is_made(composed, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("alexnet_lab.data.stream.writing.litdata", lambda: None)
    monkeypatch.setattr("alexnet_lab.commands.prepare.make_store", lambda *_, **__: pytest.fail("was made"))
    (tmp_path / "file").touch()
    for place, message in (
        (tmp_path, "is not empty"),
        (tmp_path / "file/x", "no folder can be made in"),
        ("/proc/x", "no folder can be made in /proc"),
    ):
        with pytest.raises(UserError, match=f"stream={place}:? {message}"):
            prepare(
                composed("prepare", "data=image_folder", "source=x", f"data.dir={tmp_path}/store", f"stream={place}")
            )


@pytest.fixture
def pictures(tmp_path):
    """A folder of 24 photographs of two classes, `train/<class>/*` and `val/<class>/*`."""
    random = np.random.default_rng(0)
    for split, number in (("train", 10), ("val", 2)):
        for name in ("cat", "dog"):
            folder = tmp_path / "pictures" / split / name
            folder.mkdir(parents=True)
            for place in range(number):
                pixels = random.integers(0, 256, (40, 30, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{place}.png")
    return tmp_path / "pictures"


def test_classes_are_counted_if_not_given(composed, pictures, tmp_path, capsys, caplog) -> None:
    place = ("data=image_folder", f"data.dir={tmp_path}/store")
    with caplog.at_level(logging.INFO):
        for more in ([f"source={pictures}", "workers=1"], ["verify=true"], []):
            caplog.clear()
            prepare(composed("prepare", *place, *more))
            assert (
                f"to train on it: python src/train.py data=image_folder data.dir={tmp_path}/store data.num_classes=2"
                in caplog.text
            )
            shown = capsys.readouterr().out
            assert "20 images, stored as 3 x 256 x 256 uint8" in shown
            assert "2: cat, dog" in shown
            assert f"folder: {tmp_path}/store" in shown
    with pytest.raises(UserError, match=r"data.num_classes is 3, the source has training images of 2"):
        prepare(composed("prepare", *place, f"source={pictures}", "data.num_classes=3"))


def test_without_validation_images_holding_out_a_tenth_is_suggested(
    composed, pictures, tmp_path, capsys, caplog
) -> None:
    with caplog.at_level(logging.INFO):
        place = f"data.dir={tmp_path}/store"
        folder = ("data=image_folder", "data.val_size=0", place, f"source={pictures}/train")
        prepare(composed("prepare", *folder, "workers=1"))
    assert "data.num_classes=2 data.val_size=2" in caplog.text
    assert "18 images, stored as" in capsys.readouterr().out


def test_wrong_setting_is_found_before_a_store_is_made(composed, pictures, tmp_path) -> None:
    with pytest.raises(UserError, match=r"data\.flip: 'often' does not fit"):
        prepare(
            composed(
                "prepare", "data=image_folder", f"data.dir={tmp_path}/store", f"source={pictures}", "data.flip=often"
            )
        )
    assert not (tmp_path / "store").exists()


def test_a_store_is_written_as_a_stream(composed, pictures, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("LITDATA_CACHE_DIR", str(tmp_path / "cache"))
    pytest.importorskip("litdata", reason="needs the extra: pip install -e '.[stream]'")
    place = ("data=image_folder", f"data.dir={tmp_path}/store", f"source={pictures}", "workers=1")
    prepare(composed("prepare", *place, "format=jpeg", f"stream={tmp_path}/stream"))
    capsys.readouterr()
    prepare(composed("prepare", "data=image_folder", f"data.dir={tmp_path}/stream"))
    shown = capsys.readouterr().out
    assert "20 images, stored as 3 x 256 x 256 uint8" in shown
    assert f"folder: {tmp_path}/stream" in shown
