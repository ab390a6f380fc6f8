"""`alexnet_lab.load`: the documented lines, and images in all forms."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import alexnet_lab
from alexnet_lab.commands.predict import predict
from alexnet_lab.errors import UserError
from alexnet_lab.models.gradcam import grad_cam
from alexnet_lab.runs.checkpoint import read_checkpoint
from alexnet_lab.runs.trained_network import TrainedNetwork

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model(trained_run) -> TrainedNetwork:
    return alexnet_lab.load(trained_run.folder)


@pytest.fixture
def photographs(tmp_path) -> list[Path]:
    """As a camera or a web page has them: turned by EXIF data, transparent, with a palette, CMYK, of 16 bits, ..."""
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[274] = 6  # turned
    clear = image.convert("RGBA")
    clear.putalpha(Image.fromarray(pixels[..., 0]))
    saved = {
        "first.jpg": (image, {"exif": exif, "quality": 95}), "second.jpg": (image.convert("CMYK"), {}),
        "grey.png": (image.convert("L"), {}), "clear.png": (clear, {}), "palette.gif": (image.convert("P"), {}),
        "bits.png": (Image.fromarray(pixels[..., 1].astype(np.uint16) * 257), {}),
        "both.webp": (clear, {"lossless": True}), "two.png": (image.convert("1"), {}),
    }  # fmt: skip
    for name, (one, options) in saved.items():
        one.save(tmp_path / name, **options)
    return [tmp_path / name for name in saved]


def test_documented_lines_run_and_name_the_classes_that_predict_names(
    trained_run, composed, photographs, tmp_path, monkeypatch, capsys
) -> None:
    from alexnet_lab.commands.export import export

    export(
        composed("export", f"checkpoint={trained_run.best}", "format=safetensors", f"out={tmp_path}/net.safetensors")
    )
    found = predict(composed("predict", f"checkpoint={trained_run.best}", f"images={tmp_path}/*.jpg"))
    capsys.readouterr()
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "checkpoints.md").read_text(), re.DOTALL)
    lines = [line for line in block.splitlines() if line and not line.startswith("import")]
    assert len(lines) == 3
    monkeypatch.chdir(tmp_path)
    exec(block, {})
    assert capsys.readouterr().out.strip() == str([one.classes[0][0] for one in found])
    in_card = re.findall(r"```python\n(.*?)```", (tmp_path / "net.md").read_text(), re.DOTALL)
    assert in_card == [block]


def test_pillow_images_are_prepared_as_their_files(model, photographs) -> None:
    for path in photographs:
        with Image.open(path) as image:
            assert torch.equal(model.preprocess(image), model.preprocess(path)), path.name
    paths = [str(path) for path in photographs]
    together = model.preprocess(paths)
    assert (together.shape, together.dtype) == ((len(paths), 3, 28, 28), torch.float32)
    assert torch.equal(together, torch.cat([model.preprocess(path) for path in tuple(paths)]))


def test_network_is_that_of_the_best_checkpoint_in_evaluation_mode(model, trained_run) -> None:
    assert not model.network.training
    images = torch.randn(2, 3, 28, 28)
    assert torch.equal(model.network(images), read_checkpoint(trained_run.best).network()(images))
    assert model.classes == [f"class {number}" for number in range(10)]
    assert model.preprocessing.image_size == 28


def test_grad_cam_explains_what_preprocess_returns(model, photographs) -> None:
    found = grad_cam(model.network, model.preprocess(photographs))
    assert found.maps.shape == (len(photographs), 10, 10)
    assert torch.equal(found.classes, model.network(model.preprocess(photographs)).argmax(1))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere.safetensors", "nowhere.safetensors: there is no such file"),
        (ROOT / "conf", "the folder has neither checkpoints/best.ckpt nor checkpoints/last.ckpt"),
        (ROOT / "README.md", "README.md: not a file of weights, but text"),
        ("torchvison", "torchvison: there is no such file, did you mean torchvision?"),
    ],
)
def test_what_is_no_network_is_one_line(path, message) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        alexnet_lab.load(path)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "there is no image"),
        (None, "preprocess takes paths and Pillow images, got NoneType"),
        (np.zeros((3, 28, 28)), "preprocess takes paths and Pillow images, got ndarray"),
        ([3], "preprocess takes paths and Pillow images, got int"),
        ("nowhere.jpg", "nowhere.jpg: No such file or directory"),
        (ROOT / "conf", "is not a plain file"),
        (ROOT / "README.md", "README.md: not an image in a format that Pillow can decode; the content is text"),
        (Image.new("F", (9, 9)), "the image: pixels of F, 32 bits, whose range is unknown"),
    ],
)
def test_what_is_no_image_is_one_line(model, images, message) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        model.preprocess(images)
