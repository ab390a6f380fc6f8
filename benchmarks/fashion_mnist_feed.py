"""Speed of loading Fashion-MNIST, compared with torchvision's usual way.

Ours: batches from the public `train_dataloader()`, shuffled, as uint8 on the host; and the same with the resize to 224
and the conversion to float that the device does (here the CPU). Peer: torchvision's `FashionMNIST` + `Resize(224)` +
`ToTensor` in a `DataLoader` with 2 workers, shuffled. Batches of 128; rounds alternate; the median round counts.
"""

import argparse
import gzip
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from _report import report
from torch.utils.data import DataLoader, RandomSampler
from torchvision.datasets import FashionMNIST
from torchvision.transforms import Compose, Resize, ToTensor

from alexnet_lab.data.fashion_mnist import fashion_mnist
from alexnet_lab.data.fashion_mnist_files import FILES, locate
from alexnet_lab.data.module import ImageDataModule
from alexnet_lab.data.spec import Batch

BATCH_SIZE = 128
IMAGE_SIZE = 224
WARM_UP = 2
"""Batches before the measurement: the workers have started, and the peer's queues are full."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of loading Fashion-MNIST, ours and torchvision's.")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds, within a minute")
    quick = parser.parse_args().quick
    rounds, peer_batches, resize_batches = (3, 25, 40) if quick else (5, 100, 150)

    module = data_module()
    rates: dict[str, list[float]] = {"feed": [], "feed_with_resize": [], "torchvision": []}
    with tempfile.TemporaryDirectory() as folder:
        peer = torchvision_loader(Path(folder), peer_batches + WARM_UP)
        for number in range(rounds):
            loader = module.train_dataloader()
            loader.batch_sampler.sampler.set_epoch(number)
            rates["feed"].append(images_per_second(loader))
            rates["feed_with_resize"].append(images_per_second(islice(resized(module, loader), resize_batches)))
            rates["torchvision"].append(images_per_second(peer))

    medians = {name: statistics.median(values) for name, values in rates.items()}
    labels = {
        "feed": "ours: uint8 on the host",
        "feed_with_resize": f"ours: float {IMAGE_SIZE}x{IMAGE_SIZE}, resized on the CPU",
        "torchvision": f"torchvision: float {IMAGE_SIZE}x{IMAGE_SIZE}, 2 workers",
    }
    report(
        "fashion_mnist_feed",
        ("feed", "images/s", "lowest", "highest"),
        [
            (labels[name], *(f"{value:,.0f}" for value in (medians[name], min(values), max(values))))
            for name, values in rates.items()
        ],
        {f"{name}_vs_torchvision": medians[name] / medians["torchvision"] for name in ("feed", "feed_with_resize")},
        {f"{name}_images_per_second": median for name, median in medians.items()}
        | {"rounds": rounds, "torch_threads": torch.get_num_threads()},
    )


def data_module() -> ImageDataModule:
    module = fashion_mnist(
        name="fashion_mnist",
        dir="data/fashion_mnist",
        num_classes=10,
        channels=1,
        mean=[0.0],
        std=[1.0],
        image_size=IMAGE_SIZE,
        batch_size=BATCH_SIZE,
        eval_batch_size=BATCH_SIZE,
        validate_on="test",
        val_size=5000,
        split_seed=0,
        seed=0,
    )
    module.prepare_data()
    module.setup("fit")
    return module


def resized(module: ImageDataModule, batches: Iterable[Batch]) -> Iterator[Batch]:
    for batch in batches:
        yield module.on_after_batch_transfer(batch, 0)


def torchvision_loader(folder: Path, num_batches: int) -> DataLoader[Any]:
    """The peer over the same files, `num_batches` shuffled batches per epoch."""
    raw = folder / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    paths = locate(Path("data/fashion_mnist"))
    assert paths is not None
    for name in FILES:
        data = paths[name].read_bytes()
        (raw / name).write_bytes(gzip.decompress(data) if paths[name].suffix == ".gz" else data)
    dataset = FashionMNIST(str(folder), train=True, transform=Compose([Resize(IMAGE_SIZE), ToTensor()]))
    sampler = RandomSampler(dataset, num_samples=num_batches * BATCH_SIZE)
    return DataLoader(dataset, batch_size=BATCH_SIZE, sampler=sampler, num_workers=2)


def images_per_second(batches: Iterable[Any]) -> float:
    iterator = iter(batches)
    for _ in range(WARM_UP):
        next(iterator)
    images = 0
    start = time.perf_counter()
    for batch in iterator:
        images += len(batch[0])
    return images / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
