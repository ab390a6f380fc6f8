"""The files of a stream, and the import of LitData.

    PLACE/                   a folder, or s3://BUCKET/FOLDER, or what else LitData reads
      train/ val/ test/      a LitData data set each: chunks of `CHUNK_IMAGES` records image, label, sample
      about/                 a LitData data set of one record, written last: `About`

`image` is the JPEG file of the 256 x 256 image, `label` its place in the list of classes, `sample` its number in the
store. The training images are in a fixed shuffled order, since a store is sorted by class and a chunk must not be.

Shuffling is weaker than from a store: an epoch goes from chunk to chunk, the chunks and the images of each in an order
drawn from (seed, epoch), see `EpochOrder`. Crops, mirror images and colour belong to (seed, epoch, sample), as ever.
"""

import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from alexnet_lab.command_line import install
from alexnet_lab.data.sampler import PLACE_STREAM, random_order
from alexnet_lab.errors import UserError

ABOUT = "about"
INDEX = "index.json"
"""LitData's index of a data set's chunks, written last."""
FORMATS = {"bytes", "int", "str"}
"""LitData's formats of the values in our records; others may hold a pickle, which can run any program."""
CONTAINERS = {None, "builtins.dict"}
"""Allowed containers of a record; for some other types, LitData imports what the index names."""
CHUNK_IMAGES = 2048
"""About 40 MB per chunk, also in the memory of a reader."""


class About(TypedDict):
    """The record in `about/`."""

    meta: str
    """The store's `meta.json`."""
    mean_image: bytes
    """float32 [256, 256, 3]"""
    labels: bytes
    """int64, all splits concatenated in the order of `meta.counts`, by number in the store"""
    chunk_images: int


def litdata() -> Any:
    """Import LitData.

    Raises:
        UserError: it is not installed.
    """
    try:
        return import_module("litdata")
    except ImportError as error:
        raise UserError(f"streams need the package litdata ({error}): {install('stream')}") from None


def open_stream(place: str) -> Any:
    """LitData's data set at `place`, from which reading a record runs no program that its writer has chosen.

    Raises:
        UserError: LitData is not installed, or the data set was not written by AlexNet Lab.
    """
    dataset = litdata().StreamingDataset(place)
    # LitData has downloaded the index, and nothing else.
    check_index(Path(dataset.input_dir.path, INDEX), place)
    return dataset


def check_index(index: Path, place: str) -> None:
    """Refuse a data set with records of another kind than ours; raises UserError."""
    config = json.loads(index.read_text(encoding="utf-8"))["config"]
    other = sorted({*map(str, config["data_format"])} - FORMATS)
    other += sorted(str(name) for name in _containers(json.loads(config["data_spec"])) if name not in CONTAINERS)
    if other:
        raise UserError(
            f"{place} is not an AlexNet Lab stream: it holds Python objects ({other[0]}), which could run any program"
        )


def _containers(spec: Any) -> Iterator[Any]:
    for node in spec if isinstance(spec, list) else [spec]:
        if isinstance(node, dict):
            yield node.get("type")
            yield from _containers(node.get("children_spec"))


def is_url(place: str) -> bool:
    """Whether LitData must download the data; it treats `local:FOLDER` as a bucket."""
    return "://" in place or place.startswith("local:")


def is_stream(place: str) -> bool:
    """Whether `place` is an address, or a folder with a complete stream."""
    return is_url(place) or (Path(place) / ABOUT / INDEX).is_file()


def inside(place: str, name: str) -> str:
    return f"{place.rstrip('/')}/{name}"


def stored_order(split: str, count: int) -> NDArray[np.int64]:
    """[count]: the samples of a split, numbered as in the store, in the order of their records."""
    return random_order(count, 0, stream=PLACE_STREAM) if split == "train" else np.arange(count)
