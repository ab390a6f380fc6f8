"""BVLC's networks from files that this test writes in Caffe's format, compared with Caffe's functions written out here.

The writer and the reference share no code with the reader. BVLC's own files were not at hand.
"""

import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from alexnet_lab.commands.predict import predict
from alexnet_lab.data.imagenet_classes import imagenet_classes
from alexnet_lab.errors import UserError
from alexnet_lab.models.alexnet_original import alexnet_original
from alexnet_lab.published.caffe_networks import _check_layers, _weights
from alexnet_lab.published.caffemodel import Blob, Layer
from alexnet_lab.runs.checkpoint import read_checkpoint

SHAPES = {
    "conv1": (96, 3, 11, 11),
    "conv2": (256, 48, 5, 5),
    "conv3": (384, 256, 3, 3),
    "conv4": (384, 192, 3, 3),
    "conv5": (256, 192, 3, 3),
    "fc6": (4096, 9216),
    "fc7": (4096, 4096),
    "fc8": (1000, 4096),
}
Arrays = dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]


# The writer


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def message(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def integer(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def new_blob(array: NDArray[np.float32]) -> bytes:
    """With a `shape` and packed numbers, as Caffe writes it since 2015."""
    dims = b"".join(map(varint, array.shape))
    return message(7, message(1, dims)) + message(5, array.astype("<f4").tobytes())


def old_blob(array: NDArray[np.float32]) -> bytes:
    """With num, channels, height and width; the gradient follows the numbers, and is ignored."""
    four = (1,) * (4 - array.ndim) + array.shape
    sides = b"".join(integer(number, side) for number, side in enumerate(four, 1))
    return sides + message(5, array.astype("<f4").tobytes()) + message(6, bytes(4))


def text(number: int, *values: str) -> bytes:
    return b"".join(message(number, value.encode()) for value in values)


def layer_v2(name: str, kind: str, bottom: str, blobs: list[bytes]) -> bytes:
    head = text(1, name) + text(2, kind) + text(3, bottom) + text(4, name)
    return message(100, head + b"".join(message(7, blob) for blob in blobs) + integer(10, 1))


def layer_v1(name: str, kind: str, bottom: str, blobs: list[bytes]) -> bytes:
    number = {"Convolution": 4, "InnerProduct": 14, "LRN": 15, "Pooling": 17, "ReLU": 18, "Data": 5}[kind]
    head = text(2, bottom) + text(3, name) + text(4, name) + integer(5, number)
    return message(2, head + b"".join(message(6, blob) for blob in blobs) + struct.pack("<Bf", 7 << 3 | 5, 1.0))


def layer_v0(name: str, kind: str, bottom: str, blobs: list[bytes]) -> bytes:
    inner = text(1, name) + text(2, kind.lower()) + b"".join(message(50, blob) for blob in blobs)
    return message(2, message(1, inner) + text(2, bottom) + text(3, name))


def caffemodel(kind: str, arrays: Arrays, layer: Callable[..., bytes], blob: Callable[..., bytes]) -> bytes:
    out, bottom = [text(1, "CaffeNet"), layer("data", "Data", "", [])], "data"
    for name, (weight, bias) in arrays.items():
        out.append(layer(name, "Convolution" if "conv" in name else "InnerProduct", bottom, [blob(weight), blob(bias)]))
        order = {"bvlc_alexnet": ("norm", "pool"), "caffenet": ("pool", "norm")}[kind]
        after = {"conv1": order, "conv2": order, "conv5": ("pool",)}.get(name, ())
        out.append(layer(f"relu{name[-1]}", "ReLU", name, []))
        bottom = name
        for what in after:
            out.append(layer(f"{what}{name[-1]}", {"norm": "LRN", "pool": "Pooling"}[what], bottom, []))
            bottom = f"{what}{name[-1]}"
    return b"".join(out)


# Caffe's network and preprocessing


def lrn(x: Tensor) -> Tensor:
    """Caffe's across all channels: x / (1 + alpha / 5 * sum over five channels of x^2)^0.75."""
    squares, scale = F.pad(x.double() ** 2, (0, 0, 0, 0, 2, 2)), torch.ones_like(x, dtype=torch.float64)
    for offset in range(5):
        scale += 1e-4 / 5 * squares[:, offset : offset + x.shape[1]]
    return (x / scale**0.75).float()


def pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, 2, ceil_mode=True)  # Caffe rounds up


def caffe_forward(kind: str, arrays: Arrays, x: Tensor) -> dict[str, Tensor]:
    """By layer: the outputs for [N, 3, 227, 227] in BGR, 0 to 255 less the mean."""
    w = {name: [torch.from_numpy(array) for array in pair] for name, pair in arrays.items()}
    out: dict[str, Tensor] = {}
    for name, options in (("conv1", {"stride": 4}), ("conv2", {"padding": 2, "groups": 2})):
        out[name] = x = F.conv2d(x, *w[name], **options)
        x = F.relu(x)
        for what in ("norm", "pool") if kind == "bvlc_alexnet" else ("pool", "norm"):
            out[f"{what}{name[-1]}"] = x = {"norm": lrn, "pool": pool}[what](x)
    for name, groups in (("conv3", 1), ("conv4", 2), ("conv5", 2)):
        out[name] = x = F.conv2d(x, *w[name], padding=1, groups=groups)
        x = F.relu(x)
    out["pool5"] = x = pool(x)
    x = x.reshape(len(x), -1)  # channels, rows, columns
    for name in ("fc6", "fc7", "fc8"):
        out[name] = x = x @ w[name][0].T + w[name][1]
        x = F.relu(x)
    return out


def caffe_input(picture: Path, mean: NDArray[np.float32]) -> Tensor:
    """As Caffe's transformer makes it from a picture of 256 x 256: BGR, less the mean, the centre of 227."""
    pixels = np.asarray(Image.open(picture).convert("RGB"))[:, :, ::-1].transpose(2, 0, 1).astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray((pixels - mean)[None, :, 14:241, 14:241]))


# The tests


@pytest.fixture(scope="module")
def arrays() -> Arrays:
    """Weights that let signals through: images of 0 to 255 give large activations, so the normalisation matters."""
    random, found = np.random.default_rng(0), {}
    for name, shape in SHAPES.items():
        largest = (6 / np.prod(shape[1:])) ** 0.5 * (0.1 if name == "fc8" else 1)
        weight = random.random(shape, np.float32)  # faster than a normal distribution
        weight -= np.float32(0.5)
        weight *= np.float32(2 * largest)
        found[name] = (weight, random.standard_normal(shape[0], np.float32))
    return found


FORMATS = {"bvlc_alexnet": (layer_v2, new_blob), "caffenet": (layer_v1, old_blob)}


@pytest.fixture(scope="module", params=FORMATS)
def written(request: Any, arrays: Arrays, tmp_path_factory: Any) -> Iterator[tuple[str, Path]]:
    """`bvlc_alexnet` in today's format, without a mean image, and `caffenet` in the format of 2014, with one."""
    kind: str = request.param
    path = tmp_path_factory.mktemp(kind) / "net.caffemodel"
    path.write_bytes(caffemodel(kind, arrays, *FORMATS[kind]))
    if kind == "caffenet":
        path.with_name("imagenet_mean.binaryproto").write_bytes(old_blob(mean_image()))
    yield kind, path
    path.unlink()  # 244 MB


def mean_image() -> NDArray[np.float32]:
    """[3, 256, 256], BGR, different at each place."""
    row = np.linspace(-20, 20, 256, dtype=np.float32)
    return np.array([104, 117, 123], np.float32)[:, None, None] + row[None, :, None] + row[None, None, :] / 2


@pytest.fixture(scope="module")
def picture(tmp_path_factory: Any) -> Path:
    path = tmp_path_factory.mktemp("picture") / "picture.png"
    coarse = np.random.default_rng(1).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((256, 256), Image.Resampling.BICUBIC).save(path)
    return path


@torch.no_grad()
def test_every_layer_and_the_probabilities_of_a_picture_are_those_of_caffe(
    written: tuple[str, Path], arrays: Arrays, picture: Path, composed: Any
) -> None:
    kind, path = written
    mean = mean_image() if kind == "caffenet" else np.array([104.00698793, 116.66876762, 122.67891434])[:, None, None]
    expected = caffe_forward(kind, arrays, caffe_input(picture, mean.astype(np.float32)))

    found = read_checkpoint(f"{kind}:{path}")
    for name, (weight, bias) in arrays.items():
        in_rgb = torch.from_numpy(weight).flip(1) if name == "conv1" else torch.from_numpy(weight)
        assert torch.equal(found.weights[f"{name}.weight"], in_rgb)
        assert torch.equal(found.weights[f"{name}.bias"], torch.from_numpy(bias))
    net, preprocessing = found.network(), found.needed_preprocessing()
    met: dict[str, Tensor] = {}
    for name in expected:
        net.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: met.update({name: out.clone()}))
    logits = net(preprocessing.inputs([preprocessing.decode(picture.read_bytes())]))
    for name, output in expected.items():
        scale = float(output.abs().max())
        assert scale > 0.1
        torch.testing.assert_close(
            met[name], output, atol=1e-5 * scale, rtol=0, msg=lambda text, name=name: name + text
        )

    image = predict(composed("predict", f"checkpoint={kind}:{path}", f"images={picture}", "top=1000"))[0]
    probabilities = expected["fc8"].double().softmax(1)[0]
    names = [known.name for known in imagenet_classes()]
    assert dict(image.classes) == pytest.approx(dict(zip(names, probabilities.tolist(), strict=True)), abs=1e-5)
    assert probabilities.max() > 0.01

    wrong = alexnet_original(image_size=227).eval()  # LRN in each tower, with k = 2
    wrong.load_state_dict(found.weights)
    assert (wrong(preprocessing.inputs([preprocessing.decode(picture.read_bytes())])) - logits).abs().max() > 0.1


def test_the_run_is_named_after_the_file_and_the_mean(written: tuple[str, Path]) -> None:
    kind, path = written
    about = {"bvlc_alexnet": "the mean pixel", "caffenet": "the mean image imagenet_mean.binaryproto"}[kind]
    found = read_checkpoint(f"{kind}:{path}")
    assert (found.settings["run"], found.file) == (f"net.caffemodel with {about}", path)


def test_mean_that_cannot_be_read_is_a_line(
    written: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kind, path = written
    mean = path.with_name("imagenet_mean.binaryproto")
    caplog.set_level("INFO", "alexnet_lab")
    read_checkpoint(f"{kind}:{path}")
    lines = [f"checkpoint={kind}:{path}: the mean in {mean} is subtracted"] if kind == "caffenet" else []
    assert caplog.messages == lines
    for make, reason in ((Path.mkdir, "Is a directory"), (Path.touch, "not a mean image of Caffe, or a damaged one")):
        other = path.parent / make.__name__
        other.mkdir()
        os.link(path, other / path.name)
        make(other / "mean.binaryproto")
        with pytest.raises(UserError, match=rf"^checkpoint=\S+: {other}/mean\.binaryproto.*{reason}"):
            read_checkpoint(f"{kind}:{other / path.name}")


def test_missing_bias_and_an_unexpected_shape_are_named(arrays: Arrays) -> None:
    def of(array: NDArray[np.float32]) -> Blob:
        return Blob(array.shape, [memoryview(array.reshape(-1)).cast("B")], array.dtype)

    def found(fc8: list[Blob]) -> list[Layer]:
        read = {name: [*map(of, pair)] for name, pair in arrays.items()} | {"fc8": fc8}
        return [Layer(name, [], pair) for name, pair in read.items()]

    def blob(*shape: int) -> Blob:
        return Blob(shape, [bytearray(4 * int(np.prod(shape)))], np.dtype("<f4"))

    for shape in ((1, 1, 1000, 4096), (1, 4096)):
        with pytest.raises(UserError, match=r"^x: fc8\.bias is missing$"):
            _weights(found([blob(*shape)]), "caffenet", "x")
    with pytest.raises(UserError, match=r"^x: fc8\.weight has the shape \[10, 5\], expected \[10, 4096\]$"):
        _weights(found([blob(10, 5), blob(10)]), "caffenet", "x")


def test_message_names_the_input_that_shows_the_other_network() -> None:
    found = [Layer(name, ["data", "norm1"], []) for name in SHAPES]
    with pytest.raises(UserError, match="whose conv2 reads norm1: name it caffenet:FILE"):
        _check_layers(found, "bvlc_alexnet", "x")


def test_network_named_as_the_other_one_is_refused(written: tuple[str, Path]) -> None:
    kind, path = written
    other = {"bvlc_alexnet": "caffenet", "caffenet": "bvlc_alexnet"}[kind]
    with pytest.raises(UserError, match=rf"this file is of {kind}, whose conv2 reads \w+1: name it {kind}:FILE"):
        read_checkpoint(f"{other}:{path}")


def test_truncated_file_is_reported(written: tuple[str, Path]) -> None:
    kind, path = written
    part = path.with_name("part.caffemodel")
    with path.open("rb") as whole:
        part.write_bytes(whole.read(1000_000))
    with pytest.raises(
        UserError, match=r"part\.caffemodel: not a file of Caffe's weights \(\.caffemodel\), or a damaged"
    ):
        read_checkpoint(f"{kind}:{part}")
