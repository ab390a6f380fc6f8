"""Reads Caffe's files: the layers and weights of a `.caffemodel`, and a mean image, `.binaryproto`.

Only names, inputs and weights are read, of the three versions of Caffe's layers. Field numbers: BVLC/caffe,
src/caffe/proto/caffe.proto.
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

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

MOST_LAYERS, MOST_BOTTOMS, MOST_BLOBS, MOST_DIMS = 10_000, 100, 100, 32
"""Of a network, and of a layer; a blob of Caffe has at most 32 dimensions. More of them would only cost memory."""
LONGEST_SIDE = 2**31
LONGEST_NAME = 1000
"""Bytes."""
SHORT_PART = 65536
"""Bytes; shorter parts of an array are copied together, as each would need an object of its own."""

Found = dict[int, list[memoryview]]
"""The values of some fields of a message."""
Item = TypeVar("Item")


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
        if len(part) >= SHORT_PART:
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


def layers(net: memoryview) -> Iterator[Layer]:
    """The layers of a NetParameter, in order; raises Damaged if `net` is not one."""
    found = (item for item in fields(net) if item[0] in (LAYER, V1_LAYERS))
    for number, value in _at_most(MOST_LAYERS, found, "layers"):
        yield _layer(_message(value), V2) if number == LAYER else _old_layer(_message(value))


def blob(message: memoryview) -> Blob:
    """The array of a BlobProto; raises Damaged if `message` is not one."""
    shape: list[int] | None = None
    old_shape, numbers = dict.fromkeys(OLD_SHAPE, 0), {DATA: Parts(), DOUBLE_DATA: Parts()}
    for number, value in fields(message):
        if number == SHAPE:
            dims = (dim for key, dim in fields(_message(value)) if key == DIM)
            sides = (one for dim in dims for one in ([dim] if isinstance(dim, int) else varints(dim)))
            shape = [*_at_most(MOST_DIMS, sides, "dimensions of an array")]
        elif number in numbers:
            numbers[number].add(_message(value))
        elif number in old_shape and isinstance(value, int):
            old_shape[number] = value
    known = tuple(old_shape.values() if shape is None else shape)
    kind = DATA if numbers[DATA].found else DOUBLE_DATA
    size = sum(map(len, numbers[kind].found))
    if not all(0 < side < LONGEST_SIDE for side in known) or size != prod(known) * DTYPES[kind].itemsize:
        raise Damaged(f"an array of {list(known)} with {size:,} bytes")
    return Blob(known, numbers[kind].found, DTYPES[kind])


def _old_layer(message: memoryview) -> Layer:
    outer = _collected(message, {V0_LAYER: 1, V1.bottom: MOST_BOTTOMS})
    if V0_LAYER not in outer:
        return _layer(message, V1)
    inner = _layer(outer[V0_LAYER][0], V0)
    return Layer(inner.name, _texts(outer, V1.bottom), inner.blobs)


def _layer(message: memoryview, numbers: Numbers) -> Layer:
    found = _collected(message, {numbers.name: 1, numbers.bottom: MOST_BOTTOMS, numbers.blobs: MOST_BLOBS})
    blobs = [blob(value) for value in found.get(numbers.blobs, [])]
    return Layer("".join(_texts(found, numbers.name)[-1:]), _texts(found, numbers.bottom), blobs)


def _collected(message: memoryview, most: dict[int, int]) -> Found:
    """The values of the fields in `most`, which has the largest number of values of each."""
    found: Found = {}
    for number, value in fields(message):
        if number in most:
            found.setdefault(number, []).append(_message(value))
            if len(found[number]) > most[number]:
                raise Damaged(f"a layer with more than {most[number]} fields of number {number}")
    return found


def _at_most(number: int, items: Iterator[Item], what: str) -> Iterator[Item]:
    for count, item in enumerate(items):
        if count == number:
            raise Damaged(f"more than {number:,} {what}")
        yield item


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise Damaged("a number in place of a message")
    return value


def _texts(found: Found, number: int) -> list[str]:
    return [bytes(value[:LONGEST_NAME]).decode("utf-8", "replace") for value in found.get(number, [])]
