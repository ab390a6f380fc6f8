"""Small sources of images with a store made of them, and settings of `photographs`."""

from pathlib import Path

import numpy as np
from PIL import Image

from alexnet_lab.data.photographs import photographs

WNIDS = ("n01440764", "n02102040", "n03888257")
TRAIN, VAL = 23, 7

SETTINGS = {
    "name": "imagenette",
    "num_classes": 3,
    "channels": 3,
    "image_size": 224,
    "batch_size": 6,
    "eval_batch_size": 4,
    "val_size": 0,
    "split_seed": 0,
    "seed": 5,
    "crop": "random",
    "crop_size": 224,
    "flip": 0.5,
    "colour": "source",
    "colour_std": 0.1,
    "colour_basis": "store",
    "rotation": 0.0,
    "scaling": 0.0,
    "jitter": 0.0,
    "mean": "image_centre",
    "std": [1 / 255],
    "workers": 0,
}
WITHOUT_STATISTICS = {"mean": [0.5], "std": [0.25], "colour_basis": "published"}


def module(folder: Path, **changes):
    return photographs(**SETTINGS | {"dir": str(folder)} | changes)


def write_tree(folder: Path) -> None:
    """Smooth random pictures of several sizes, one of them grey, as JPEGs in train/<wnid> and val/<wnid>."""
    random = np.random.default_rng(0)
    for split, number in (("train", TRAIN), ("val", VAL)):
        for place in range(number):
            coarse = Image.fromarray(random.integers(0, 256, (9, 9, 3), dtype=np.uint8))
            picture = coarse.resize([(300, 280), (256, 256), (200, 320)][place % 3], Image.Resampling.BICUBIC)
            path = folder / split / WNIDS[place % 3] / f"{place:03}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            (picture.convert("L") if place == 4 else picture).save(path, quality=95)
