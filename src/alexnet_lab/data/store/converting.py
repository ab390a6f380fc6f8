"""Converts chunks of samples in several processes, in order.

The processes import nothing heavy (no torch), and end if their parent is killed.
"""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from alexnet_lab.data.sources.samples import Sample
from alexnet_lab.data.store import statistics
from alexnet_lab.data.store.format import IMAGE_BYTES, IMAGE_SHAPE, TRANSPARENCY, Format
from alexnet_lab.data.store.images import read_image, to_jpeg, to_square
from alexnet_lab.data.store.modes import Unreadable
from alexnet_lab.errors import UserError


class Chunk(NamedTuple):
    """Consecutive samples of one split."""

    split: str
    samples: list[Sample]
    labels: list[int]
    form: Format


class Converted(NamedTuple):
    split: str
    samples: int
    """Number of samples of the source, including unreadable ones."""
    images: NDArray[np.uint8]
    """The stored bytes, of any shape."""
    lengths: list[int]
    """Length of each image in bytes."""
    labels: list[int]
    unreadable: list[tuple[str, str]]
    """File and reason of each unreadable image."""
    sums: statistics.Sums | None
    """Only for training images."""


def convert(chunk: Chunk) -> Converted:
    """Reads, decodes and scales the images of a chunk; unreadable images are left out and listed."""
    pixels = np.empty((len(chunk.samples), *IMAGE_SHAPE), np.uint8)
    labels: list[int] = []
    unreadable = []
    for sample, label in zip(chunk.samples, chunk.labels, strict=True):
        try:
            pixels[len(labels)] = to_square(read_image(sample.blob), transparency=TRANSPARENCY)
            labels.append(label)
        except (Unreadable, OSError) as error:
            reason = str(error).replace(
                sample.blob.file, Path(sample.blob.file).name
            )  # independent of the source's location
            unreadable.append((_printable(f"{chunk.split}/{sample.wnid}/{sample.name}"), _printable(reason)))
    pixels = pixels[: len(labels)]
    sums = statistics.sums(pixels) if chunk.split == "train" else None
    lengths = [IMAGE_BYTES] * len(labels)
    if chunk.form == "jpeg":
        jpegs = [to_jpeg(image) for image in pixels]
        lengths = [len(jpeg) for jpeg in jpegs]
        pixels = np.frombuffer(b"".join(jpegs), np.uint8)
    return Converted(chunk.split, len(chunk.samples), pixels, lengths, labels, unreadable, sums)


def convert_all(chunks: Iterable[Chunk], workers: int) -> Iterator[Converted]:
    """The converted chunks, in order; with one worker, this process converts them itself."""
    if workers == 1:
        yield from map(convert, chunks)
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin_worker)
    try:
        chunks = iter(chunks)
        # Limited, because results wait in memory for their turn.
        waiting: deque[Future[Converted]] = deque(pool.submit(convert, chunk) for chunk in islice(chunks, 2 * workers))
        while waiting:
            converted = waiting.popleft().result()
            waiting.extend(pool.submit(convert, chunk) for chunk in islice(chunks, 1))
            yield converted
    except BrokenProcessPool:
        raise UserError(
            "a worker process was killed (out of memory?); repeat the command to continue; fewer workers need less "
            "memory"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _printable(text: str) -> str:
    """The text with invalid bytes escaped; file names may contain them."""
    return text.encode(errors="backslashreplace").decode()


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends this process
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
