"""Synthetic images of any size, channels and classes for tests: no files, and learnable in a few steps.

Each class has a prototype of coarse random blocks; an image is its class's prototype under pixel noise.
"""

from collections.abc import Sequence

import numpy as np

from alexnet_lab.data.contents import Contents
from alexnet_lab.data.dataset import Split, SplitName
from alexnet_lab.data.draws import Augmentation, Crop
from alexnet_lab.data.mixing import Mixing
from alexnet_lab.data.module import ImageDataModule
from alexnet_lab.data.pipeline import Colour
from alexnet_lab.data.small_images import small_images
from alexnet_lab.data.spec import DataSpec
from alexnet_lab.errors import UserError

BLOCKS = 4
"""Number of blocks per side of a prototype."""
NOISE = 32.0
"""Standard deviation of the noise in grey levels."""


class Synthetic:
    """Images uint8 [n, C, stored_size, stored_size], determined only by the arguments; classes of about equal size."""

    def __init__(self, spec: DataSpec, stored_size: int, sizes: dict[SplitName, int], split_seed: int) -> None:
        self.spec = spec
        self._stored_size = stored_size
        self._sizes = sizes
        self._seed = split_seed
        self._instantiated: dict[SplitName, Split] = {}

    def prepare(self) -> None:
        """Nothing to download."""

    def split(self, name: SplitName) -> Split:
        if name not in self._instantiated:
            self._instantiated[name] = self._make(list(self._sizes).index(name), self._sizes[name])
        return self._instantiated[name]

    def contents(self) -> dict[SplitName, Contents]:
        """Empty: the settings alone determine the images."""
        return {}

    def places(self) -> list[str]:
        return ["generated in memory at every start; nothing to prepare"]

    def _make(self, number: int, size: int) -> Split:
        labels = np.arange(size) % self.spec.num_classes
        # Spawned generators: the same prototypes, but different noise, in each split.
        prototypes, *noise = np.random.default_rng(self._seed).spawn(1 + len(self._sizes))
        blocks = prototypes.uniform(0, 255, (self.spec.num_classes, self.spec.channels, BLOCKS, BLOCKS))
        block = np.arange(self._stored_size) * BLOCKS // self._stored_size
        pixels = blocks[:, :, block[:, None], block].astype(np.float32)[labels]
        pixels += NOISE * noise[number].standard_normal(pixels.shape, dtype=np.float32)
        # In C order, since a gather from any other first copies the whole array.
        return Split(pixels.clip(0, 255).astype(np.uint8, order="C"), labels, np.arange(size))


def synthetic(
    *,
    name: str,
    num_classes: int,
    channels: int,
    mean: Sequence[float],
    std: Sequence[float],
    stored_size: int,
    train_size: int,
    val_size: int,
    test_size: int,
    image_size: int,
    batch_size: int,
    eval_batch_size: int,
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
    """The data module of `conf/data/synthetic.yaml`, where each argument is explained.

    Raises:
        UserError: a value is out of range.
    """
    sizes: dict[SplitName, int] = {"train": train_size, "val": val_size, "test": test_size}
    stated = {f"{split}_size": size for split, size in sizes.items()}
    stated |= {"num_classes": num_classes, "channels": channels, "stored_size": stored_size}
    for key, value in stated.items():
        if value < 1:
            raise UserError(f"data.{key} must be at least 1, got {value}")
    if split_seed < 0:
        raise UserError(f"data.split_seed must not be negative, got {split_seed}")
    classes = tuple(f"class {number}" for number in range(num_classes))
    spec = DataSpec(name, classes, channels, tuple(mean), tuple(std))
    amount = 0 if colour == "off" else colour_std
    augmentation = Augmentation(
        crop, None, flip, rotation, scaling, jitter, amount, colour_until_epoch, crop_padding, channels
    )
    return small_images(
        Synthetic(spec, stored_size, sizes, split_seed),
        stored_size,
        augmentation,
        colour,
        image_size,
        batch_size=batch_size,
        eval_batch_size=eval_batch_size,
        seed=seed,
        channels_last=channels_last,
        mixing=Mixing(mixup_alpha, cutmix_alpha),
    )
