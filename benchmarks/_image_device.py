"""The part of `image_feed.py` that feeds a device, from stores and JPEGs of noise, so that it needs no real images.

In images per second, by CUDA events: batches on the host, in page-locked memory, by number of threads; batches prepared
on the device one ahead of a consumer that only drops them; timm's loader as its users run it, which decodes JPEGs with
all cores. In milliseconds: the copy and the input pipeline of a batch, one after another.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from _device import Mark, milliseconds, trainer_on
from _gpu_runs import photographs, random_store
from _photographs import BATCH_SIZE, IMAGE_SIZE, data_module
from _report import median_ratio, report
from torch import Tensor

from alexnet_lab.data.module import ImageDataModule
from alexnet_lab.data.spec import Batch

THREADS = (1, 2, 4, 8)
WARM_UP = 3
"""Batches before the measurement: the threads and processes have started."""

Feed = Callable[[], Iterator[Tensor]]


def feed_device(device: str, quick: bool) -> None:
    """Measures and reports; each round has all feeds in turn."""
    images, jpegs, rounds, seconds = (1024, 768, 2, 0.2) if quick else (16384, 8192, 5, 2.0)
    with random_store(images) as store, tempfile.TemporaryDirectory() as folder:
        module = data_module("imagenet", store)
        module.trainer = trainer_on(device)
        feeds: dict[str, Feed] = {"prepared": lambda: (module.prepared(batch).images for batch in epochs(module))}
        for threads in THREADS:
            feeds[f"host_{threads}_threads"] = on_the_host(module, threads)
        try:
            feeds["timm"] = timm_loader(Path(folder), jpegs, device)
        except ImportError as error:
            print(f"skipped: timm is not installed ({error})")
        rates: dict[str, list[float]] = {name: [] for name in feeds}
        for _ in range(rounds):
            for name, feed in feeds.items():
                rates[name].append(images_per_second(feed(), seconds, device))
        batch = next(epochs(module, threads=1, on_host=True))
        module.prepared(batch)
        step = milliseconds(lambda: module.prepared(batch), device)
    medians = {name: statistics.median(found) for name, found in rates.items()}
    rows = [
        (name, f"{medians[name]:,.0f}", f"{min(found):,.0f}", f"{max(found):,.0f}") for name, found in rates.items()
    ]
    rows.append((f"copy and pipeline of {BATCH_SIZE} images, ms", f"{step:.2f}", "", ""))
    ratios = {"prepared_vs_timm": median_ratio(rates["prepared"], rates["timm"])} if "timm" in rates else {}
    figures = {f"{name}_images_per_second": median for name, median in medians.items()}
    figures |= {"copy_and_pipeline_ms": step, "cores": os.cpu_count() or 1}
    report("image_feed", ("feed", "images/s", "lowest", "highest"), rows, ratios, figures)


def on_the_host(module: ImageDataModule, threads: int) -> Feed:
    return lambda: (batch.images for batch in epochs(module, threads, on_host=True))


def epochs(module: ImageDataModule, threads: int | None = None, on_host: bool = False) -> Iterator[Batch]:
    """Repeats epochs; by default with the default number of threads, and on a GPU prepared there."""
    module.workers = threads
    loader = module.train_dataloader()
    if on_host:
        loader.prefetch = None
    while True:
        yield from loader


def timm_loader(folder: Path, jpegs: int, device: str) -> Feed:
    from timm.data import create_dataset, create_loader

    loader = create_loader(
        create_dataset("", root=str(photographs(folder, jpegs))),
        input_size=(3, IMAGE_SIZE, IMAGE_SIZE),
        batch_size=BATCH_SIZE,
        is_training=True,
        num_workers=os.cpu_count() or 1,
        persistent_workers=False,
        pin_memory=device == "cuda",
        device=torch.device(device),
    )
    return lambda: (images for images, _ in loader)


def images_per_second(batches: Iterator[Tensor], seconds: float, device: str) -> float:
    """Over whole batches, until the time is up or the epoch ends, and the device has done them."""
    for _ in range(WARM_UP):
        next(batches)
    images, start, stop = 0, Mark(device), time.perf_counter() + seconds
    for batch in batches:
        images += len(batch)
        if time.perf_counter() >= stop:
            break
    return images / Mark(device).seconds_since(start)
