import pytest

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


def test_made_up_images_need_no_preparation(composed, capsys) -> None:
    prepare(composed("prepare", "data=synthetic", "data.num_classes=3", "model=lenet"))
    shown = capsys.readouterr().out
    assert "512 images, stored as 3 x 32 x 32" in shown
    assert "3: class 0, class 1, class 2" in shown
    assert "there is nothing to prepare" in shown


def test_wrong_value_is_refused(composed) -> None:
    with pytest.raises(UserError, match=r"data.num_classes of Fashion-MNIST is 10, got 7"):
        prepare(composed("prepare", "data.num_classes=7"))
