"""Crop and augmentation of each image, drawn on the host from the sample's own key.

N samples, H W stored size.
"""

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from alexnet_lab.data.keys import normals, uniforms
from alexnet_lab.data.spec import Draws
from alexnet_lab.errors import UserError

Crop = Literal["random", "random_resized", "centre"]

AREA = (0.08, 1.0)
"""Fraction of the image's area, in torchvision's RandomResizedCrop."""
RATIO = (3 / 4, 4 / 3)
"""Width over height, drawn uniformly in the logarithm."""
ATTEMPTS = 10


class Purpose(IntEnum):
    """One stream of random numbers per purpose; the values never change, because they determine what a seed yields."""

    CROP = 0
    FLIP = 1
    ROTATION = 2
    SCALING = 3
    JITTER = 4
    COLOUR = 5
    MIXING = 6


@dataclass(frozen=True)
class Augmentation:
    """How training images vary; `conf/data/imagenet.yaml` explains each.

    Raises:
        UserError: a value is out of range.
    """

    crop: Crop
    crop_size: int | None
    """Side of the window that `random` and `centre` cut out of the stored image, in its pixels; None: the whole image,
    which `random` moves by at most `crop_padding`."""
    flip: float
    """Probability of mirroring."""
    rotation: float
    """Largest angle, in degrees."""
    scaling: float
    """Largest fraction by which the image grows or shrinks."""
    jitter: float
    """Largest fraction by which brightness, contrast and saturation change."""
    colour_std: float
    """Standard deviation of the amounts of the principal components; 0 turns colour noise off."""
    colour_until_epoch: int | None = None
    """The first epoch without colour noise, counted from 0; None: all epochs have it."""
    crop_padding: int = 0
    """Pixels in each direction; unused with a `crop_size`."""
    channels: int = 3
    """Of the images, which have as many principal components."""

    def __post_init__(self) -> None:
        limits = {"flip": 1.0, "rotation": 180.0, "scaling": 0.9, "jitter": 1.0, "colour_std": 10.0}
        for key, limit in limits.items():
            value = getattr(self, key)
            if not 0 <= value <= limit:
                raise UserError(f"data.{key} must be in [0, {limit:g}], got {value}")
        if self.colour_until_epoch is not None and self.colour_until_epoch < 0:
            raise UserError(f"data.colour_until_epoch must not be negative, got {self.colour_until_epoch}")
        if self.crop_size is not None and self.crop_size < 1:
            raise UserError(f"data.crop_size must be at least 1, got {self.crop_size}")
        if self.jitter and self.channels not in (1, 3):
            raise UserError(f"data.jitter needs grey or RGB images, not {self.channels} channels")

    @property
    def changes_images(self) -> bool:
        """Whether training images differ from those of an evaluation."""
        return self != self.for_evaluation()

    def has_colour(self, epoch: int) -> bool:
        """Whether colour noise is drawn in `epoch`."""
        return self.colour_std > 0 and (self.colour_until_epoch is None or epoch < self.colour_until_epoch)

    def for_evaluation(self) -> "Augmentation":
        """The centre, unchanged."""
        return replace(self, crop="centre", flip=0.0, rotation=0.0, scaling=0.0, jitter=0.0, colour_std=0.0)


class Views(NamedTuple):
    """The window that the host crops from each stored image, and the random draws for the device."""

    corners: NDArray[np.int64]
    """[N, 2], top and left."""
    size: tuple[int, int]
    """Height and width."""
    draws: Draws = Draws()

    @classmethod
    def whole(cls, number: int, stored: tuple[int, int]) -> "Views":
        """The whole of each of `number` images."""
        return cls(np.zeros((number, 2), np.int64), stored)


def draw(
    augmentation: Augmentation, stored: tuple[int, int], seed: int, epoch: int, samples: NDArray[np.int64]
) -> Views:
    """Draw the views of `samples`, int64 [N], from images of `stored` height and width."""
    key = (seed, epoch, samples)
    drawn: dict[str, torch.Tensor] = {}
    if augmentation.crop == "random_resized":
        corners, size, _ = Views.whole(len(samples), stored)
        drawn["box"] = torch.from_numpy(random_boxes(stored, uniforms(*key, Purpose.CROP, 2 * ATTEMPTS + 2)))
    elif augmentation.crop_size is None:
        corners, size, _ = Views.whole(len(samples), stored)
        if augmentation.crop == "random":
            reach = augmentation.crop_padding
            drawn["shift"] = torch.from_numpy(_floor(uniforms(*key, Purpose.CROP, 2) * (2 * reach + 1)) - reach)
    else:
        size = (augmentation.crop_size, augmentation.crop_size)
        room = np.array(stored) - size
        places = uniforms(*key, Purpose.CROP, 2) if augmentation.crop == "random" else None
        corners = np.tile(room // 2, (len(samples), 1)) if places is None else _floor(places * (room + 1))
        drawn["corner"] = torch.from_numpy(corners)
    if augmentation.flip:
        drawn["flip"] = torch.from_numpy(uniforms(*key, Purpose.FLIP, 1)[:, 0] < augmentation.flip)
    if augmentation.rotation:
        drawn["rotation"] = _around(0, augmentation.rotation, uniforms(*key, Purpose.ROTATION, 1)[:, 0])
    if augmentation.scaling:
        drawn["scaling"] = _around(1, augmentation.scaling, uniforms(*key, Purpose.SCALING, 1)[:, 0])
    if augmentation.jitter:
        drawn["jitter"] = _around(1, augmentation.jitter, uniforms(*key, Purpose.JITTER, 3))
    if augmentation.has_colour(epoch):
        amounts = normals(*key, Purpose.COLOUR, augmentation.channels) * augmentation.colour_std
        drawn["colour"] = torch.from_numpy(amounts.astype(np.float32))
    return Views(corners, size, Draws(**drawn))


def random_boxes(stored: tuple[int, int], uniform: NDArray[np.float64]) -> NDArray[np.int64]:
    """Top, left, height and width, [N, 4], as torchvision's RandomResizedCrop chooses them from [N, 22] uniforms.

    An area and a ratio are drawn up to ten times until the box fits; where none did, the box is the whole image, which
    is what torchvision takes of a square one (of others a centre of permitted ratio).
    """
    height, width = stored
    area = (AREA[0] + (AREA[1] - AREA[0]) * uniform[:, :ATTEMPTS]) * height * width
    ratio = RATIO[0] * (RATIO[1] / RATIO[0]) ** uniform[:, ATTEMPTS : 2 * ATTEMPTS]
    heights, widths = np.rint(np.sqrt(area / ratio)), np.rint(np.sqrt(area * ratio))
    fits = (heights >= 1) & (heights <= height) & (widths >= 1) & (widths <= width)
    each, first = np.arange(len(uniform)), fits.argmax(1)
    found = fits[each, first]
    size = np.stack([np.where(found, heights[each, first], height), np.where(found, widths[each, first], width)], 1)
    corner = np.floor(uniform[:, 2 * ATTEMPTS :] * (np.array(stored) - size + 1))
    return np.concatenate([corner, size], 1).astype(np.int64)


def _floor(values: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.floor(values).astype(np.int64)


def _around(middle: float, reach: float, uniform: NDArray[np.float64]) -> torch.Tensor:
    return torch.from_numpy((middle + reach * (2 * uniform - 1)).astype(np.float32))
