"""Caffe's format, in all its versions, and what is not a file of BVLC's networks."""

import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_caffe_networks import (
    SHAPES,
    caffemodel,
    integer,
    layer_v0,
    layer_v1,
    layer_v2,
    message,
    new_blob,
    old_blob,
    text,
    varint,
)

from alexnet_lab.errors import UserError
from alexnet_lab.published import protobuf
from alexnet_lab.published.caffe_networks import caffe_checkpoint
from alexnet_lab.published.caffemodel import layers
from alexnet_lab.published.protobuf import Damaged
from alexnet_lab.runs.checkpoint import read_checkpoint

ARRAY = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)


def unpacked_blob(array: NDArray[np.float32]) -> bytes:
    """Each dimension and each number as a field of its own."""
    dims = b"".join(integer(1, side) for side in array.shape)
    return message(7, dims) + b"".join(varint(5 << 3 | 5) + struct.pack("<f", one) for one in array.flat)


def double_blob(array: NDArray[np.float32]) -> bytes:
    return message(8, array.astype("<f8").tobytes()) + message(7, message(1, b"".join(map(varint, array.shape))))


def blob_in_parts(array: NDArray[np.float32]) -> bytes:
    numbers = array.astype("<f4").tobytes()
    return new_blob(array)[: -len(numbers) - 2] + message(5, numbers[:40]) + message(5, numbers[40:])


@pytest.mark.parametrize("layer", [layer_v0, layer_v1, layer_v2])
@pytest.mark.parametrize("blob", [new_blob, old_blob, unpacked_blob, double_blob, blob_in_parts])
def test_every_version_of_layers_and_arrays_is_read(layer: Callable[..., bytes], blob: Callable[..., bytes]) -> None:
    net = text(1, "net") + layer("pool0", "Pooling", "data", []) + layer("c", "Convolution", "pool0", [blob(ARRAY)])
    first, second = layers(memoryview(net))
    assert (first.name, first.blobs) == ("pool0", [])
    assert (second.name, second.bottoms, second.blobs[0].shape) == ("c", ["pool0"], (2, 3, 2, 2))
    assert torch.equal(second.blobs[0].tensor(2, 12), torch.from_numpy(ARRAY.reshape(2, 12)))


def wrong_blob(*sides: int) -> bytes:
    return message(7, message(1, b"".join(map(varint, sides))))


def of_blob(*blobs: bytes) -> bytes:
    return message(100, b"".join(message(7, blob) for blob in blobs))


HOSTILE = {
    "names": (message(100, b"\x0a\x00" * 500_000), "a layer with more than 1 fields of number 1"),
    "bottoms": (message(100, b"\x1a\x00" * 500_000), "a layer with more than 100 fields of number 3"),
    "bottoms of old layers": (message(2, b"\x12\x00" * 500_000), "a layer with more than 100 fields of number 2"),
    "arrays": (message(100, b"\x3a\x00" * 500_000), "a layer with more than 100 fields of number 7"),
    "layers": (message(100, b"") * 250_000, "more than 10,000 layers"),
    "old layers": (message(2, b"") * 250_000, "more than 10,000 layers"),
    "dimensions": (of_blob(wrong_blob(*[1] * 500_000)), "more than 32 dimensions of an array"),
    "dimensions one by one": (of_blob(message(7, integer(1, 1) * 500_000)), "more than 32 dimensions of an array"),
    "parts of an array": (of_blob(message(5, bytes(4)) * 200_000), "a message of more than 20,000 fields"),
    "other fields": (message(100, message(99, b"") * 500_000), "a message of more than 20,000 fields"),
    "a side of 0 and a huge one": (
        of_blob(wrong_blob(2**64, 0)),
        r"an array of \[18446744073709551616, 0\] with 0 bytes",
    ),
    "a side of 0": (of_blob(wrong_blob(5, 0)), r"an array of \[5, 0\] with 0 bytes"),
}


@pytest.mark.parametrize(("net", "reason"), HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_file_is_refused_without_a_large_allocation(
    net: bytes, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protobuf, "MOST_FIELDS", 20_000)  # fewer than usual, since tracing is slow
    tracemalloc.start()
    try:
        with pytest.raises(Damaged, match=reason):
            list(layers(memoryview(net)))
        assert tracemalloc.get_traced_memory()[1] < len(net) + 4_000_000
    finally:
        tracemalloc.stop()


def test_no_damage_leads_to_another_error_than_a_line(tmp_path: Path) -> None:
    """Each byte of a small file is changed, and the file cut at each place."""
    net = text(1, "net") + layer_v2("conv1", "Convolution", "data", [new_blob(ARRAY), old_blob(ARRAY[0, 0])])
    path = tmp_path / "x.caffemodel"
    for place in range(len(net)):
        for damaged in (net[:place], net[:place] + bytes([net[place] ^ 0xFF]) + net[place + 1 :]):
            path.write_bytes(damaged or b"\n")
            with pytest.raises(UserError, match=r"^checkpoint=x: "):
                caffe_checkpoint("caffenet", path, "checkpoint=x")


def small(**shapes: tuple[int, ...]) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    return {name: (np.zeros(shape, np.float32), np.zeros(shape[:1], np.float32)) for name, shape in shapes.items()}


VGG = small(conv1_1=(64, 3, 3, 3), conv1_2=(64, 64, 3, 3), fc8=(10, 4))
UNGROUPED = small(**{**SHAPES, "conv2": (256, 96, 5, 5)} | dict.fromkeys(("fc6", "fc7", "fc8"), (1, 1)))
FILES: dict[str, tuple[bytes, str]] = {
    "VGG": (
        caffemodel("caffenet", VGG, layer_v2, new_blob),
        "not the weights of caffenet: its layers with weights are conv1_1, conv1_2, fc8; expected conv1, conv2, ",
    ),
    "without weights": (layer_v2("conv1", "Convolution", "data", []), "its layers with weights are none; expected"),
    "without groups": (
        caffemodel("caffenet", UNGROUPED, layer_v2, new_blob),
        r"conv2\.weight has the shape \[256, 96, 5, 5\], expected \[256, 48, 5, 5\]",
    ),
    "escape sequence": (layer_v2("\x1b[2J", "Convolution", "data", [new_blob(ARRAY)]), r"are \\x1b\[2J; expected"),
    "web page": (b"<!DOCTYPE html><html>", r"not a file of Caffe's weights \(\.caffemodel\), but a web page: download"),
    "text": (b'# a net\nname: "CaffeNet"\nlayer {', r"but the text description of a network \(\.prototxt\), without"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(99), "but an HDF5 file"),
    "PyTorch": (b"PK\x03\x04" + bytes(99), "but a file of PyTorch"),
    "pickle": (b"\x80\x04\x95" + bytes(99), "but a pickle file, which could run any program"),
    "empty": (b"", "the file is empty"),
    "noise": (b"\xff" * 99, r"or a damaged one: an integer that does not end"),
}


@pytest.mark.parametrize(("content", "reason"), FILES.values(), ids=FILES.keys())
def test_other_file_is_refused_in_a_line(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "x.caffemodel"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"^checkpoint=caffenet:{path}: .*{reason}") as caught:
        read_checkpoint(f"caffenet:{path}")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "prefix"),
    [("x.caffemodel", "caffenet:"), ("x.safetensors", ""), ("x.pth", "")],
    ids=["caffe", "st", "pth"],
)
def test_file_that_may_not_be_read_is_a_line(
    name: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / name).write_bytes(b"x")
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UserError, match=rf"^checkpoint={prefix}{tmp_path}/{name}: .*Permission denied$"):
        read_checkpoint(f"{prefix}{tmp_path}/{name}")


def test_missing_file_and_wrong_name_are_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such file; name one such as caffenet:caffenet\.caffemodel"):
        read_checkpoint(f"caffenet:{tmp_path}/nowhere")
    (tmp_path / "net.caffemodel").write_bytes(b"x")
    with pytest.raises(UserError, match="a file of Caffe; name its network: bvlc_alexnet:FILE or caffenet:FILE"):
        read_checkpoint(tmp_path / "net.caffemodel")
    with pytest.raises(UserError, match=r"there is no such file, did you mean caffenet\?"):
        read_checkpoint(tmp_path / "caffnet:net.caffemodel")
