"""Fashion-MNIST: 60,000 training and 10,000 test images of clothes, grey, 28 x 28, ten classes.

Source: Xiao, Rasul, Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms",
2017, arXiv:1708.07747.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from alexnet_lab.data import fashion_mnist_files as files
from alexnet_lab.data.contents import Contents
from alexnet_lab.data.dataset import Split, SplitName, held_out_rows
from alexnet_lab.data.draws import Augmentation, Crop
from alexnet_lab.data.mixing import Mixing
from alexnet_lab.data.module import ImageDataModule
from alexnet_lab.data.pipeline import Colour
from alexnet_lab.data.small_images import small_images
from alexnet_lab.data.spec import DataSpec
from alexnet_lab.errors import UserError

SIDE = 28
CLASSES = (
    "t-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)


class FashionMnist:
    """The three splits; validation is held out of the training images, or is the test split.

    Args:
        folder: searched first for the files; downloaded files are written to it.
        validate_on: `split` holds `val_size` training images out by `split_seed`; `test` trains on all 60,000.
    """

    def __init__(
        self, spec: DataSpec, folder: Path, validate_on: Literal["split", "test"], val_size: int, split_seed: int
    ) -> None:
        self.spec = spec
        self._folder = folder
        num_train = files.FILES["train-labels-idx1-ubyte"].shape[0]
        train, val = np.arange(num_train), np.arange(0)
        if validate_on == "split":
            train, val = held_out_rows(num_train, val_size, split_seed)
        self._train_rows = {"train": train, "val": val}
        self._validate_on = validate_on
        self._loaded: dict[str, Split] = {}

    def prepare(self) -> None:
        """Downloads the files if neither the folder nor the system has them; see `fashion_mnist_files.prepare`."""
        files.prepare(self._folder)

    def split(self, name: SplitName) -> Split:
        """Images uint8 [M, 1, 28, 28]; `train` and `val` share one array. UserError for missing or damaged files."""
        if name == "test" or (name == "val" and self._validate_on == "test"):
            return self._load("t10k")
        return self._load("train")._replace(rows=self._train_rows[name])

    def training_images(self) -> int:
        """Their number, known without the files."""
        return len(self._train_rows["train"])

    def contents(self) -> dict[SplitName, Contents]:
        """Empty: the settings alone determine the images."""
        return {}

    def places(self) -> list[str]:
        return [f"{name}: {path.absolute()}" for name, path in (files.locate(self._folder) or {}).items()]

    def _load(self, part: str) -> Split:
        if part not in self._loaded:
            images, labels = files.load(self._folder, part)
            self._loaded[part] = Split(images[:, None], labels.astype(np.int64), np.arange(len(labels)))
        return self._loaded[part]


def fashion_mnist(
    *,
    name: str,
    dir: str,
    num_classes: int,
    channels: int,
    mean: Sequence[float],
    std: Sequence[float],
    image_size: int,
    batch_size: int,
    eval_batch_size: int,
    validate_on: Literal["split", "test"],
    val_size: int,
    split_seed: int,
    seed: int,
    channels_last: bool = True,
    mixup_alpha: float = 0.0,
    cutmix_alpha: float = 0.0,
    crop: Crop = "centre",
    crop_padding: int = 4,
    flip: float = 0.0,
    rotation: float = 0.0,
    scaling: float = 0.0,
    jitter: float = 0.0,
    colour: Colour = "off",
    colour_std: float = 0.1,
    colour_until_epoch: int | None = None,
) -> ImageDataModule:
    """The data module of `conf/data/fashion_mnist.yaml`, where each argument is explained.

    Raises:
        UserError: a value is out of range, or the stated classes or channels are not those of Fashion-MNIST.
    """
    for key, stated, truth in (("num_classes", num_classes, len(CLASSES)), ("channels", channels, 1)):
        if stated != truth:
            raise UserError(f"data.{key} of Fashion-MNIST is {truth}, got {stated}")
    spec = DataSpec(name, CLASSES, channels, tuple(mean), tuple(std))
    amount = 0 if colour == "off" else colour_std
    augmentation = Augmentation(
        crop, None, flip, rotation, scaling, jitter, amount, colour_until_epoch, crop_padding, channels
    )
    return small_images(
        FashionMnist(spec, Path(dir), validate_on, val_size, split_seed),
        SIDE,
        augmentation,
        colour,
        image_size,
        batch_size=batch_size,
        eval_batch_size=eval_batch_size,
        seed=seed,
        channels_last=channels_last,
        mixing=Mixing(mixup_alpha, cutmix_alpha),
    )
