"""Reads Caffe's files: the layers and weights of a `.caffemodel`, and a mean image, `.binaryproto`.

Only names, inputs and weights are read, of the three versions of Caffe's layers. Field numbers: BVLC/caffe,
src/caffe/proto/caffe.proto.
"""

import mmap
from collections import defaultdict
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from alexnet_lab.published.protobuf import Damaged, fields, varints

LAYER, V1_LAYERS = 100, 2
"""Fields of a NetParameter."""
V0_LAYER = 1
"""The field of a V1LayerParameter that holds a layer of the oldest version."""
SHAPE, DATA, DOUBLE_DATA = 7, 5, 8
OLD_SHAPE = (1, 2, 3, 4)
"""Fields of a BlobProto: num, channels, height and width."""
DIM = 1
DTYPES: dict[int, np.dtype[Any]] = {DATA: np.dtype("<f4"), DOUBLE_DATA: np.dtype("<f8")}

LONGEST_NUMBER = 8
"""Bytes."""

Found = dict[int, list[int | memoryview]]
"""The values of each field of a message."""


class Numbers(NamedTuple):
    """Fields of a layer, by version."""

    name: int
    bottom: int
    blobs: int


V2, V1, V0 = Numbers(1, 3, 7), Numbers(4, 2, 6), Numbers(1, 2, 50)


@dataclass(frozen=True)
class Blob:
    """An array in the file."""

    shape: tuple[int, ...]
    """As recorded; older files have four numbers, 1 where there is no such dimension."""
    parts: list[memoryview | bytearray]
    dtype: np.dtype[Any]

    def tensor(self, *shape: int) -> Tensor:
        """A copy as float32, in another shape of as many numbers."""
        numbers = np.frombuffer(bytearray().join(self.parts), self.dtype).astype(np.float32, copy=False)
        return torch.from_numpy(numbers).reshape(shape)


class Parts:
    """Numbers in the order of the file; packed, as Caffe writes them, or each as a field of its own."""

    def __init__(self) -> None:
        self.found: list[memoryview | bytearray] = []

    def add(self, part: memoryview) -> None:
        if len(part) > LONGEST_NUMBER:
            self.found.append(part)
        elif self.found and isinstance(last := self.found[-1], bytearray):
            last += part
        else:
            self.found.append(bytearray(part))


@dataclass(frozen=True)
class Layer:
    name: str
    bottoms: list[str]
    """The layers or arrays that it reads."""
    blobs: list[Blob]


def mapped(path: Path) -> memoryview:
    """The bytes of a file that is not empty, mapped into memory."""
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def layers(net: memoryview) -> list[Layer]:
    """The layers of a NetParameter, in order; raises Damaged if it is none."""
    found = []
    for number, value in fields(net):
        if number == LAYER:
            found.append(_layer(_message(value), V2))
        elif number == V1_LAYERS:
            found.append(_old_layer(_message(value)))
    return found


def blob(message: memoryview) -> Blob:
    """The array of a BlobProto; raises Damaged if it is none."""
    shape: list[int] | None = None
    old_shape, numbers = dict.fromkeys(OLD_SHAPE, 0), {DATA: Parts(), DOUBLE_DATA: Parts()}
    for number, value in fields(message):
        if number == SHAPE:
            dims = [dim for key, dim in fields(_message(value)) if key == DIM]
            shape = [one for dim in dims for one in ([dim] if isinstance(dim, int) else varints(dim))]
        elif number in numbers:
            numbers[number].add(_message(value))
        elif number in old_shape and isinstance(value, int):
            old_shape[number] = value
    known = tuple(old_shape.values() if shape is None else shape)
    kind = DATA if numbers[DATA].found else DOUBLE_DATA
    size = sum(map(len, numbers[kind].found))
    if size != prod(known) * DTYPES[kind].itemsize:
        raise Damaged(f"an array of {list(known)} with {size:,} bytes")
    return Blob(known, numbers[kind].found, DTYPES[kind])


def _old_layer(message: memoryview) -> Layer:
    outer = _collected(message)
    if V0_LAYER not in outer:
        return _layer(message, V1)
    inner = _layer(_message(outer[V0_LAYER][-1]), V0)
    return Layer(inner.name, _texts(outer, V1.bottom), inner.blobs)


def _layer(message: memoryview, numbers: Numbers) -> Layer:
    found = _collected(message)
    blobs = [blob(_message(value)) for value in found.get(numbers.blobs, [])]
    return Layer("".join(_texts(found, numbers.name)[-1:]), _texts(found, numbers.bottom), blobs)


def _collected(message: memoryview) -> Found:
    found: Found = defaultdict(list)
    for number, value in fields(message):
        found[number].append(value)
    return dict(found)


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise Damaged("a number in place of a message")
    return value


def _texts(found: Found, number: int) -> list[str]:
    return [bytes(_message(value)).decode("utf-8", "replace") for value in found.get(number, [])]
