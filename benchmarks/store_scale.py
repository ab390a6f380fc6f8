"""Cost of a store of ImageNet's size compared with a small one: first batch, order, memory, time per image.

The store is sparse: 1,281,167 training images of 256 x 256 are 252 GB that occupy nothing, and the file system gives
zeros for them. Everything else about it is as `prepare` writes it, and it is read through the public
`train_dataloader()`, shuffled, in batches of 128. Each part is measured in a process of its own.

first_batch_s: from nothing but the store's path to the first batch, the libraries being imported and no part of the
store being in memory. order_s: one epoch's order. rss_mib: the greatest anonymous memory (RssAnon) of a process that
feeds batches, all its libraries included; the page cache, which is the system's, is left out. cost_growth: time per
image of the whole store over that of 1,000 images, both read and not mapped, without threads, from pages that are in
memory, each image's share of its epoch's order included.
"""

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from _photographs import BATCH_SIZE, data_module, forget
from _report import report

from alexnet_lab import machine
from alexnet_lab.data.store.format import (
    IMAGE_BYTES,
    IMAGE_SHAPE,
    LABELS,
    MEAN_IMAGE,
    NPY_HEADER_BYTES,
    PIXELS,
    VERSION,
    Checksums,
    StoreClass,
    StoreMeta,
    npy_header,
    write_meta,
)

IMAGENET = {"train": 1_281_167, "val": 50_000}
CLASSES = 1000
SIZES = (1_000, 10_000, 100_000, IMAGENET["train"])
TIMED_BATCHES = 7
"""Whole batches of the smallest store: for every size, the same number of images and pages is read."""

Result = TypeVar("Result")


def main() -> None:
    parser = argparse.ArgumentParser(description="Cost of a store of ImageNet's size.")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, within a minute")
    quick = parser.parse_args().quick
    rounds, memory_batches, passes = (2, 10, 15) if quick else (5, 50, 60)

    with tempfile.TemporaryDirectory() as folder:
        stores = {size: sparse_store(Path(folder) / str(size), size) for size in SIZES}
        largest = stores[SIZES[-1]]
        occupied, apparent = disk_bytes(largest)
        first = statistics.median(in_own_process(first_batch_seconds, largest) for _ in range(rounds))
        order = in_own_process(order_seconds, largest, rounds)
        memory = in_own_process(anonymous_mib, largest, memory_batches)
        costs = in_own_process(microseconds_per_image, stores, passes)

    growth = costs[SIZES[-1]] / costs[SIZES[0]]
    report(
        "store_scale",
        (f"store of {SIZES[-1]:,} images", "measured", "aim"),
        [
            ("first batch, s", f"{first:.3f}", "<= 1"),
            ("order of an epoch, s", f"{order:.3f}", "< 0.5"),
            ("memory beyond the page cache, MiB", f"{memory:.0f}", "< 1024"),
            *((f"time per image of {size:,}, us", f"{cost:.2f}", "flat") for size, cost in costs.items()),
            ("size on paper, GB", f"{apparent / 1e9:.1f}", ""),
            ("size on the disk, GB", f"{occupied / 1e9:.3f}", ""),
        ],
        {"first_batch_s": first, "order_s": order, "rss_mib": memory, "cost_growth": growth},
        {f"microseconds_per_image_{size}": cost for size, cost in costs.items()}
        | {"store_gb": apparent / 1e9, "disk_gb": occupied / 1e9, "rounds": rounds},
    )


def sparse_store(folder: Path, train_images: int) -> Path:
    """A store of `count` black images that opens like any other."""
    counts = IMAGENET | {"train": train_images}
    (folder / "train").mkdir(parents=True)
    (folder / "val").mkdir()
    (folder / MEAN_IMAGE).write_bytes(npy_header("<f4", IMAGE_SHAPE) + bytes(4 * IMAGE_BYTES))
    for split, count in counts.items():
        labels = np.arange(count, dtype="<i8") * CLASSES // count
        (folder / split / LABELS).write_bytes(npy_header("<i8", (count,)) + labels.tobytes())
        try:
            with (folder / split / PIXELS).open("wb") as file:
                file.write(npy_header("|u1", (count, *IMAGE_SHAPE)))
                file.truncate(NPY_HEADER_BYTES + count * IMAGE_BYTES)
        except OSError as error:
            sys.exit(f"{folder} cannot hold a sparse file of {count * IMAGE_BYTES / 1e9:.0f} GB ({error}): set TMPDIR")
    files = sorted(folder.rglob("*.npy"))
    meta = StoreMeta(
        version=VERSION,
        name="imagenet",
        format="uint8",
        classes=[StoreClass(wnid=f"n{place:08}", name=f"class {place}") for place in range(CLASSES)],
        counts=counts,
        mean=[0.0] * 3,
        std=[1.0] * 3,
        covariance=np.eye(3).tolist(),
        eigenvalues=[1.0] * 3,
        eigenvectors=np.eye(3).tolist(),
        skipped=[],
        source_sha256="",
        software={},
        checksum_block_bytes=2**26,
        # Opening a store checks the sizes; only verify=true checks the blocks.
        checksums={str(path.relative_to(folder)): Checksums(bytes=path.stat().st_size, blocks=[]) for path in files},
    )
    write_meta(folder, meta)
    return folder


def disk_bytes(folder: Path) -> tuple[int, int]:
    """Disk usage and length of the files of a store."""
    found = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return sum(file.st_blocks for file in found) * 512, sum(file.st_size for file in found)


def in_own_process(measure: Callable[..., Result], *arguments: object) -> Result:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, *arguments).result()


def first_batch_seconds(folder: Path) -> float:
    forget(folder)
    start = time.perf_counter()
    batch = next(iter(data_module("imagenet", folder).train_dataloader()))
    seconds = time.perf_counter() - start
    assert len(batch.images) == BATCH_SIZE
    return seconds


def order_seconds(folder: Path, rounds: int) -> float:
    sampler = data_module("imagenet", folder).train_dataloader().batch_sampler.sampler
    seconds = []
    for epoch in range(rounds):
        sampler.set_epoch(epoch)
        start = time.perf_counter()
        order = sampler.order()
        seconds.append(time.perf_counter() - start)
        assert len(order) == SIZES[-1]
    return statistics.median(seconds)


def anonymous_mib(folder: Path, num_batches: int) -> float:
    """The largest RssAnon of this process while it loads the batches."""
    most = 0
    for _ in islice(data_module("imagenet", folder).train_dataloader(), num_batches):
        status = Path("/proc/self/status").read_text().splitlines()
        most = max(most, *(int(line.split()[1]) for line in status if line.startswith("RssAnon:")))
    return most / 1024


def microseconds_per_image(stores: dict[int, Path], passes: int) -> dict[int, float]:
    """By size: the median pass over the same few batches, after a pass that loads their pages into memory.

    All are read as the largest is, although smaller ones would be mapped, which takes a third of the time.
    """
    machine.memory = lambda: 0
    loaders = {size: data_module("imagenet", folder, workers=0).train_dataloader() for size, folder in stores.items()}
    seconds: dict[int, list[float]] = {size: [] for size in stores}
    for _ in range(passes + 1):
        for size, loader in loaders.items():
            batches = iter(loader)
            start = time.perf_counter()
            loader.batch_sampler.sampler.order()
            order = (time.perf_counter() - start) / size
            next(batches)  # computes the order again
            start = time.perf_counter()
            images = sum(len(batch.images) for batch in islice(batches, TIMED_BATCHES - 1))
            seconds[size].append(order + (time.perf_counter() - start) / images)
    return {size: statistics.median(measured[1:]) * 1e6 for size, measured in seconds.items()}


if __name__ == "__main__":
    main()
