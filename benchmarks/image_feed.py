"""Speed of loading photographs, compared with common loaders: one run, 2 workers or threads each.

Batches of 128, shuffled, from files that are in memory (warm): as uint8 224x224, ready for the device, and end to end
as normalised float 224x224, for which our input pipeline runs on the CPU here. Ours goes through the public
`train_dataloader()`: from the uint8 store, from the JPEG store, and from the plain folder, where each image is made
256x256 as `prepare` would. Rounds alternate; each ratio is the median of the rounds' own, since a shared machine can
be half as fast a minute later.

The cold rate is that of the first epoch after the store's files were dropped from the page cache; the rate after it,
that of the epochs that follow, whose images came into memory one by one, in pages of 4 KB. Then every file is read from
beginning to end, as after `prepare` or a copy, and the rounds start: Linux keeps such a file in larger pages, which are
faster to copy from.

The photographs are ImageNet's own, 500x375 typically, each of which is in use several times, or with
`--source=imagenette` those of an archive that was scaled to 224x224 beforehand. The peers decode them as they are; our
JPEG store holds, and decodes, 256x256 ones, which is a third of the pixels of ImageNet's and 1.3 times Imagenette's.

The work is not the same to the letter. Ours is AlexNet's: a random 224x224 window of the 256x256 image, mirrored on the
device (in the float rows, that is). The peers' is RandomResizedCrop(224), which resamples; ours with that crop is a row
of its own, from the uint8 store and as float.

With `--device`, a device is fed instead, see `_image_device.py`; `--decoders` compares only decoders of JPEG files, see
`_image_decoders.py`.

It needs real images: ALEXNET_LAB_IMAGES names a folder with the archives. Peers that are not installed are named and
left out; `pip install -e '.[bench]'` brings them.
"""

import argparse
import gc
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from _device import check_device
from _image_decoders import compare_decoders
from _image_device import feed_device
from _image_page import Feed, plot, write_page
from _image_peers import MEAN, PEERS, STD, WORKERS
from _photographs import BATCH_SIZE, IMAGE_SIZE, data_module, forget
from _report import median_ratio, report
from torch import Tensor

from alexnet_lab.data.module import ImageDataModule

ARCHIVES = {"imagenette": "imagenette224_train.tar", "imagenet": "imagenet_fullsize_400.tar"}
WARM_UP = 2
"""Batches before the measurement: the workers have started."""
SETTLE = 1.0
"""Seconds before a measurement, in which the previous workers end and the queues fill."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of loading photographs, ours and common loaders.")
    parser.add_argument("--quick", action="store_true", help="fewer images, shorter rounds, within two minutes")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="also write image_feed.md and image_feed.png there")
    parser.add_argument("--source", choices=ARCHIVES, default="imagenet", help="whose photographs")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="feed this device instead; needs no real images")
    parser.add_argument("--decoders", action="store_true", help="compare decoders of JPEG files instead")
    arguments = parser.parse_args()
    if arguments.decoders:
        images, rounds = (100, 3) if arguments.quick else (400, 9)
        with tempfile.TemporaryDirectory() as folder:
            tree = unpack(archive(ARCHIVES[arguments.source]), Path(folder), images)
            compare_decoders([path.read_bytes() for path in sorted(tree.rglob("*.JPEG"))], rounds)
        return
    if arguments.device:
        feed_device(check_device(arguments.device), arguments.quick)
        return
    images, rounds, seconds = (1536, 2, 0.6) if arguments.quick else (4096, 9, 1.5)
    load = os.getloadavg()[0]
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)

    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        tree = unpack(archive(ARCHIVES[arguments.source]), scratch / "folder", images)
        for form in ("uint8", "jpeg"):
            make_store(tree, scratch / form, form)
        cold = {form: cold_rates(scratch / form, seconds) for form in ("uint8", "jpeg")}
        read_whole(scratch)
        feeds = our_feeds(scratch) | peer_feeds(tree, scratch, arguments.quick)
        rates: dict[str, list[float]] = {name: [] for name in feeds}
        for _ in range(rounds):
            for name, feed in feeds.items():
                rates[name].append(images_per_second(feed, seconds))

    medians = {name: statistics.median(values) for name, values in rates.items()}
    rows = [
        (feeds[name].label, *(f"{value:,.0f}" for value in (medians[name], min(values), max(values))))
        for name, values in rates.items()
    ]
    for form, (rate, after, read) in cold.items():
        rows.append((f"ours: {form} store, cold, {read:,.0f} MB read from the disk", f"{rate:,.0f}", "", ""))
        rows.append((f"ours: {form} store, after the cold epoch", f"{after:,.0f}", "", ""))
    ratios = {
        f"{name}_vs_torchvision": median_ratio(rates[name], rates["torchvision"])
        for name in ("uint8_store", "jpeg_store", "folder")
    }
    ratios["float_from_store_vs_torchvision"] = median_ratio(rates["float_from_store"], rates["torchvision_float"])
    figures = {f"{name}_images_per_second": rate for name, rate in medians.items()}
    for form, (rate, after, _) in cold.items():
        figures[f"{form}_store_cold_images_per_second"] = rate
        figures[f"{form}_store_after_cold_images_per_second"] = after
    figures |= {"images": images, "rounds": rounds, "torch_threads": torch.get_num_threads(), "load_before": load}
    header = ("feed", "images/s", "lowest", "highest")
    report("image_feed", header, rows, ratios, figures)
    if arguments.out:
        write_page(arguments.out, arguments.source, header, rows, ratios, figures)
        plot(arguments.out / "image_feed.png", feeds, medians)


def archive(name: str) -> Path:
    folder = os.environ.get("ALEXNET_LAB_IMAGES")
    if not folder:
        sys.exit(f"image_feed needs real images: set ALEXNET_LAB_IMAGES to the folder that holds {name}")
    path = Path(folder) / name
    if not path.is_file():
        sys.exit(f"image_feed needs {path}, which does not exist: set ALEXNET_LAB_IMAGES to its folder")
    return path


def unpack(source: Path, tree: Path, images: int) -> Path:
    """Files `tree/train/<class>/*`, evenly chosen from the archive's images; copies if it has fewer."""
    with tarfile.open(source) as tar:
        members = sorted((member for member in tar if member.isfile()), key=lambda member: member.name)
        for place in range(images):
            member = members[place * len(members) // images]
            file = Path(member.name)
            data = tar.extractfile(member)
            assert data is not None
            target = tree / "train" / file.parent.name / f"{place:05}_{file.name}"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data.read())
    return tree


def make_store(tree: Path, store: Path, form: str) -> None:
    """Runs the documented command, whose worker processes start without this script's imports."""
    command = [sys.executable, "src/prepare.py", "data=imagenette", "data.val_size=1", f"source={tree}"]
    command += [f"data.num_classes={classes(tree)}", f"data.dir={store}", f"format={form}", f"workers={WORKERS}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def classes(tree: Path) -> int:
    return sum(1 for _ in (tree / "train").iterdir())


def our_module(folder: Path, crop: str = "random") -> ImageDataModule:
    """Normalised like the peers. One image is held out, because training needs a validation split."""
    return data_module(
        "imagenette",
        folder,
        num_classes=classes(folder.with_name("folder")),
        val_size=1,
        crop=crop,
        colour="off",
        mean=list(MEAN),
        std=list(STD),
        workers=WORKERS,
    )


def our_feeds(scratch: Path) -> dict[str, Feed]:
    store = our_module(scratch / "uint8")
    resized = our_module(scratch / "uint8", crop="random_resized")
    return {
        "uint8_store": Feed("ours: uint8 store", "uint8", epochs(store)),
        "jpeg_store": Feed("ours: JPEG store", "uint8", epochs(our_module(scratch / "jpeg"))),
        "folder": Feed("ours: folder", "uint8", epochs(our_module(scratch / "folder"))),
        "float_from_store": Feed("ours: uint8 store, float", "float", epochs(store, normalised=True)),
        "float_resized_crop": Feed(
            "ours: uint8 store, RandomResizedCrop, float", "float", epochs(resized, normalised=True)
        ),
    }


def epochs(module: ImageDataModule, normalised: bool = False) -> Callable[[], Iterator[Tensor]]:
    """Repeats epochs, each in its own order."""
    loader = module.train_dataloader()

    def batches() -> Iterator[Tensor]:
        while True:
            loader.batch_sampler.sampler.set_epoch(loader.batch_sampler.sampler.epoch + 1)
            for batch in loader:
                yield (module.on_after_batch_transfer(batch, 0) if normalised else batch).images

    return batches


def peer_feeds(tree: Path, scratch: Path, quick: bool) -> dict[str, Feed]:
    """The installed peers; a quick run includes only torchvision with float."""
    feeds = {}
    for name, peer in PEERS.items():
        for suffix in ("", "_float") if not quick or name == "torchvision" else ("",):
            try:
                batches = peer(tree, scratch, bool(suffix))
            except ImportError as error:
                print(f"skipped: {name} is not installed ({error})")
                break
            kind = "float" if suffix else "uint8"
            feeds[name + suffix] = Feed(name + (", float" if suffix else ""), kind, batches)
    return feeds


def images_per_second(feed: Feed, seconds: float) -> float:
    """Images per second over whole batches, until the time is up or the epoch ends."""
    gc.collect()  # otherwise the forked workers would do it, and clash with DALI's threads
    time.sleep(SETTLE)
    batches = feed.batches()
    for _ in range(WARM_UP):
        check(next(batches), feed.kind)
    images = 0
    now = start = time.perf_counter()
    for batch in batches:
        images += len(batch)
        now = time.perf_counter()
        if now - start >= seconds:
            break
    return images / (now - start)


def check(batch: Tensor, kind: str) -> None:
    """Assert that a batch is full and has the expected type."""
    assert batch.dtype == {"uint8": torch.uint8, "float": torch.float32}[kind]
    assert batch.numel() == BATCH_SIZE * 3 * IMAGE_SIZE**2


def cold_rates(store: Path, seconds: float) -> tuple[float, float, float]:
    """Images per second of a cold epoch and of the following ones; megabytes read."""
    forget(store)
    module = our_module(store)
    before, start = bytes_read(), time.perf_counter()
    images = sum(len(batch.images) for batch in module.train_dataloader())
    rate, read = images / (time.perf_counter() - start), bytes_read() - before
    return rate, images_per_second(Feed(store.name, "uint8", epochs(module)), seconds), read / 1e6


def read_whole(folder: Path) -> None:
    """Reads every file completely, so that it is in memory, in the largest pages that the system uses."""
    forget(folder)
    for path in folder.rglob("*.*"):
        if path.is_file():
            path.read_bytes()


def bytes_read() -> int:
    """Bytes read from the disk by this process so far."""
    return next(
        int(line.split()[1])
        for line in Path("/proc/self/io").read_text().splitlines()
        if line.startswith("read_bytes:")
    )


if __name__ == "__main__":
    main()
