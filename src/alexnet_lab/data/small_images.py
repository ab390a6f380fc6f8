"""Data modules of small images that are kept in memory: Fashion-MNIST and the synthetic images."""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alexnet_lab.data.dataset import ImageDataset, Split
from alexnet_lab.data.draws import Augmentation
from alexnet_lab.data.module import ImageDataModule
from alexnet_lab.data.pipeline import Colour, ColourNoise, InputPipeline
from alexnet_lab.data.store.statistics import principal_components
from alexnet_lab.errors import UserError

AT_ONCE = 4_000_000
"""Values whose statistics are computed together, in float64, which bounds the memory."""


def small_images(
    dataset: ImageDataset, side: int, augmentation: Augmentation, colour: Colour, image_size: int, **options: Any
) -> ImageDataModule:
    """The data module of a dataset of `side` x `side` images; `options` are the others of `ImageDataModule`.

    Without augmentation, the images are the stored ones, and nothing is drawn.

    Raises:
        UserError: a value is out of range.
    """
    if augmentation.crop == "random" and not 1 <= augmentation.crop_padding < side:
        raise UserError(
            f"data.crop_padding must be in [1, {side - 1}] with data.crop=random, got {augmentation.crop_padding}"
        )

    def pipeline() -> InputPipeline:
        noise = None
        if colour != "off":
            values, vectors = principal_components(covariance(dataset.split("train")))
            components = torch.from_numpy(values.clip(min=0)), torch.from_numpy(vectors)
            noise = ColourNoise.of(colour, augmentation.colour_std, *components)
        spec = dataset.spec
        return InputPipeline(image_size, spec.mean, spec.std, options["channels_last"], noise=noise)

    return ImageDataModule(
        dataset,
        image_size=image_size,
        augmentation=augmentation if augmentation.changes_images else None,
        pipeline=pipeline,
        **options,
    )


def covariance(split: Split) -> NDArray[np.float64]:
    """[C, C]: of the channels of all pixels of a split, in [0, 1]."""
    count, total, products = 0, np.zeros(1), np.zeros(1)
    values = len(split.rows) * math.prod(split.images.shape[1:])
    for rows in np.array_split(split.rows, min(len(split.rows), -(-values // AT_ONCE))):
        images = np.asarray(split.images)[rows].swapaxes(0, 1)
        pixels = images.reshape(len(images), -1) / 255
        count, total, products = count + pixels.shape[1], total + pixels.sum(1), products + pixels @ pixels.T
    mean = total / count
    return products / count - np.outer(mean, mean)
