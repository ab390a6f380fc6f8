"""The files of a stream, and the import of LitData.

    PLACE/                   a folder, or s3://BUCKET/FOLDER, or what else LitData reads
      train/ val/ test/      a LitData data set each: chunks of `CHUNK_IMAGES` records image, label, sample
      about/                 a LitData data set of one record, written last: `About`

`image` is the JPEG file of the 256 x 256 image, `label` its place in the list of classes, `sample` its number in the
store. The training images are in a fixed shuffled order, since a store is sorted by class and a chunk must not be.

Shuffling is weaker than from a store: an epoch goes from chunk to chunk, the chunks and the images of each in an order
drawn from (seed, epoch), see `EpochOrder`. Crops, mirror images and colour belong to (seed, epoch, sample), as ever.
"""

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
