"""The other loaders of `image_feed.py`, each as in its own documentation, shuffled, with 2 workers or threads.

All read the same JPEGs, and all do the work of torchvision's reference training: RandomResizedCrop(224), mirror image,
and, for float, the normalisation by ImageNet's mean and deviation. A function here returns what starts an epoch of
batches, images only, and raises ImportError where the loader is not installed.
"""

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from _photographs import BATCH_SIZE, IMAGE_SIZE
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import datasets, transforms
from torchvision.transforms import v2

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WORKERS = 2

Batches = Callable[[], Iterator[Tensor]]


def torchvision_image_folder(tree: Path, scratch: Path, normalised: bool) -> Batches:
    """references/classification of torchvision: PIL images until the crop is mirrored."""
    dataset = datasets.ImageFolder(str(tree / "train"), _pil_transforms(normalised))
    loader = DataLoader(dataset, BATCH_SIZE, shuffle=True, num_workers=WORKERS)
    return lambda: (images for images, _ in loader)


def timm_create_loader(tree: Path, scratch: Path, normalised: bool) -> Batches:
    """Its prefetching loader collates uint8, normalises on the device. Colour jitter is off, the others have none."""
    from timm.data import create_dataset, create_loader

    loader = create_loader(
        create_dataset("", root=str(tree / "train")),
        input_size=(3, IMAGE_SIZE, IMAGE_SIZE),
        batch_size=BATCH_SIZE,
        is_training=True,
        color_jitter=0.0,
        num_workers=WORKERS,
        persistent_workers=False,
        device=torch.device("cpu"),
    )
    batches = loader if normalised else loader.loader
    return lambda: (images for images, _ in batches)


def litdata_streaming(tree: Path, scratch: Path, normalised: bool) -> Batches:
    """Chunks of 64 MB on the local disk, JPEGs decoded to tensors, transforms of torchvision's version 2."""
    os.environ.setdefault("LITDATA_DISABLE_VERSION_CHECK", "1")
    import litdata

    chunks = scratch / "litdata"
    if not chunks.exists():
        # Its default, spawn, would become the default of this process and of all peers' workers.
        litdata.optimize(
            _litdata_sample,
            _labelled(tree),
            str(chunks),
            chunk_bytes="64MB",
            num_workers=WORKERS,
            start_method="fork",
            verbose=False,
        )
    dataset = litdata.StreamingDataset(
        str(chunks), shuffle=True, transform=partial(_litdata_transform, _tensor_transforms(normalised))
    )
    loader = litdata.StreamingDataLoader(dataset, batch_size=BATCH_SIZE, num_workers=WORKERS)
    return lambda: (batch["image"] for batch in loader)


def _litdata_sample(labelled: tuple[str, int]) -> dict[str, Any]:
    from PIL import Image

    return {"image": Image.open(labelled[0]), "label": labelled[1]}


def _litdata_transform(transform: v2.Transform, sample: dict[str, Any]) -> dict[str, Any]:
    image = sample["image"]
    return sample | {"image": transform(image if len(image) == 3 else image.expand(3, -1, -1))}


def webdataset_shards(tree: Path, scratch: Path, normalised: bool) -> Batches:
    """One shard per worker, a shuffle buffer of 1,000 samples, batches made in the workers."""
    import webdataset

    shards = scratch / "webdataset"
    if not shards.exists():
        shards.mkdir()
        labelled = _labelled(tree)
        for worker in range(WORKERS):
            with webdataset.TarWriter(str(shards / f"{worker}.tar")) as tar:
                for place, (path, label) in enumerate(labelled[worker::WORKERS]):
                    tar.write({"__key__": f"{place:06}", "jpg": Path(path).read_bytes(), "cls": label})
    urls = [str(shards / f"{worker}.tar") for worker in range(WORKERS)]
    dataset = (
        webdataset.WebDataset(urls, shardshuffle=len(urls))
        .shuffle(1000)
        .decode("pilrgb")
        .to_tuple("jpg", "cls")
        .map_tuple(_pil_transforms(normalised))
        .batched(BATCH_SIZE)
    )
    loader = webdataset.WebLoader(dataset, batch_size=None, num_workers=WORKERS)
    return lambda: (images for images, _ in loader)


def dali_cpu(tree: Path, scratch: Path, normalised: bool) -> Batches:
    """The pipeline of DALI's ResNet-50 example on the CPU; it decodes only the part that the crop needs."""
    from nvidia.dali import fn, pipeline_def, types
    from nvidia.dali.plugin.pytorch import DALIClassificationIterator

    @pipeline_def(batch_size=BATCH_SIZE, num_threads=WORKERS, device_id=None)
    def pipeline() -> tuple[Any, Any]:
        jpegs, labels = fn.readers.file(
            file_root=str(tree / "train"), random_shuffle=True, pad_last_batch=True, name="Reader"
        )
        images = fn.decoders.image_random_crop(jpegs, device="cpu", output_type=types.RGB)
        images = fn.resize(images, resize_x=IMAGE_SIZE, resize_y=IMAGE_SIZE, interp_type=types.INTERP_TRIANGULAR)
        mirror = fn.random.coin_flip()
        if not normalised:
            return fn.flip(images, horizontal=mirror), labels
        mean, std = ([255 * value for value in values] for values in (MEAN, STD))
        return fn.crop_mirror_normalize(
            images, dtype=types.FLOAT, output_layout="CHW", mirror=mirror, mean=mean, std=std
        ), labels

    def batches() -> Iterator[Tensor]:
        for batch in DALIClassificationIterator(pipeline(), reader_name="Reader"):
            yield batch[0]["data"]

    return batches


PEERS: dict[str, Callable[[Path, Path, bool], Batches]] = {
    "torchvision": torchvision_image_folder,
    "timm": timm_create_loader,
    "litdata": litdata_streaming,
    "webdataset": webdataset_shards,
    "dali": dali_cpu,
}


def _labelled(tree: Path) -> list[tuple[str, int]]:
    return datasets.ImageFolder(str(tree / "train")).samples


def _pil_transforms(normalised: bool) -> transforms.Compose:
    crop = [transforms.RandomResizedCrop(IMAGE_SIZE), transforms.RandomHorizontalFlip()]
    if not normalised:
        return transforms.Compose([*crop, transforms.PILToTensor()])
    return transforms.Compose([*crop, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])


def _tensor_transforms(normalised: bool) -> v2.Transform:
    crop = [v2.RandomResizedCrop(IMAGE_SIZE, antialias=True), v2.RandomHorizontalFlip()]
    if not normalised:
        return v2.Compose(crop)
    return v2.Compose([*crop, v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])
