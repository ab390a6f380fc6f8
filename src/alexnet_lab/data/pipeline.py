"""The input pipeline on the device: from stored pixels to the network's input.

Shapes: N images, C channels, H W stored or cut-out size, S the network's input size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet_lab.data.augment import (
    colour_shift,
    flip,
    jitter,
    per_channel,
    resize_boxes,
    rotate_and_scale,
    shift,
    unit,
    windows,
)
from alexnet_lab.data.spec import Draws

Colour = Literal["source", "paper", "off"]

NOTHING_DRAWN = Draws()


@lru_cache(maxsize=16)
def resize_matrix(stored: int, size: int, device: torch.device) -> Tensor:
    """float32 [size, stored]: bilinear interpolation along one axis, antialiased if `size` is smaller."""
    identity = torch.eye(stored, dtype=torch.float32, device=device)[None, None]
    return F.interpolate(identity, size=(size, stored), mode="bilinear", antialias=True)[0, 0]


@dataclass(frozen=True)
class ColourNoise:
    """PCA noise: the drawn amounts times `lengths` along `vectors`, added after the mean is subtracted."""

    lengths: Tensor
    """[C], eigenvalues of the covariance of [0, 1] pixels, or their square roots."""
    vectors: Tensor
    """[C, C], columns."""
    divisor: float = 1.0
    """The image is divided by this after the noise is added."""

    @classmethod
    def of(cls, colour: Colour, colour_std: float, eigenvalues: Tensor, eigenvectors: Tensor) -> "ColourNoise | None":
        """The convention `colour` for these principal components; None if it is off."""
        if colour == "off":
            return None
        if colour == "paper":
            return cls(eigenvalues, eigenvectors)
        return cls(eigenvalues.sqrt(), eigenvectors, 1 + colour_std)

    def to(self, device: torch.device) -> "ColourNoise":
        return ColourNoise(self.lengths.to(device, torch.float32), self.vectors.to(device, torch.float32), self.divisor)


@dataclass(frozen=True)
class MeanImage:
    """Subtracted instead of the per-channel means."""

    pixels: Tensor
    """float32 [C, 256, 256], in [0, 1]: the mean of the stored training images."""
    at_crop: bool
    """Subtract the part under the crop, as in Caffe, instead of the centre for every crop, as in the 2012 source."""

    def to(self, device: torch.device) -> "MeanImage":
        return MeanImage(self.pixels.to(device), self.at_crop)

    def centre(self, size: int) -> Tensor:
        """[C, size, size]"""
        top, left = ((side - size) // 2 for side in self.pixels.shape[1:])
        return self.pixels[:, top : top + size, left : left + size]

    def under(self, size: int, draws: Draws) -> Tensor:
        """[N, C, size, size] or [C, size, size]: the mean to subtract from windows of `size`, mirrored or not."""
        if not self.at_crop or draws.corner is None:
            return self.centre(size)
        mean = windows(self.pixels, draws.corner, size)
        return mean if draws.flip is None else flip(mean, draws.flip)


class InputPipeline:
    """uint8 [N, C, H, W] to float32 [N, C, S, S]: pixels in [0, 1], minus `mean`, divided by `std`, resized bilinearly.

    With augmentation, the order is: box or shift, mirror image, rotation and scaling, jitter, mean, colour noise.

    A resize differs from torchvision's `Resize` of a PIL image by at most 1.5/255 of the range of grey levels, because
    PIL rounds to integers. An image that is not square is warped, not cropped.

    Args:
        image_size: S; images that have it already are not resized.
        mean, std: per channel or one for all, of pixels in [0, 1]; 0 and 1 leave the pixels in [0, 1].
        channels_last: the output's memory format, the fast one for convolutions on most devices.
        mean_image: subtracted instead of `mean`.
        noise: turns drawn amounts into colour shifts.
    """

    def __init__(
        self,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        channels_last: bool = True,
        mean_image: MeanImage | None = None,
        noise: ColourNoise | None = None,
    ) -> None:
        self.image_size = image_size
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.mean_image = mean_image
        self.noise = noise
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self._device: torch.device | None = None

    def __call__(self, images: Tensor, draws: Draws = NOTHING_DRAWN) -> Tensor:
        if draws.box is not None:
            images = resize_boxes(images, draws.box, self.image_size, draws.flip)
        else:
            images = images if draws.shift is None else shift(images, draws.shift)
            images = images if draws.flip is None else flip(images, draws.flip)
        pixels = unit(images)
        if draws.rotation is not None or draws.scaling is not None:
            pixels = rotate_and_scale(pixels, draws.rotation, draws.scaling)
        if draws.jitter is not None:
            pixels = jitter(pixels, draws.jitter)
        # Before the resize, which is linear and usually enlarges: fewer pixels to process.
        pixels = self._resized(self._normalised(pixels, draws))
        return pixels.contiguous(memory_format=self.memory_format)

    def _normalised(self, pixels: Tensor, draws: Draws) -> Tensor:
        """Modifies `pixels` in place."""
        self._move_constants(pixels.device)
        std = self.std
        if self.mean_image is not None:
            pixels.sub_(self.mean_image.under(pixels.shape[2], draws))
        elif any(self.mean):
            pixels.sub_(per_channel(self.mean, pixels.device))
        if draws.colour is not None:
            assert self.noise is not None
            pixels.add_(colour_shift(draws.colour, self.noise.lengths, self.noise.vectors)[:, :, None, None])
            std = tuple(value * self.noise.divisor for value in std)
        if any(value != 1 for value in std):
            pixels.div_(per_channel(std, pixels.device))
        return pixels

    def _move_constants(self, device: torch.device) -> None:
        """Moves mean image and noise to the device once: a copy per step would make the host wait."""
        if self._device == device:
            return
        self._device = device
        self.mean_image = self.mean_image and self.mean_image.to(device)
        self.noise = self.noise and self.noise.to(device)

    def _resized(self, pixels: Tensor) -> Tensor:
        size, (height, width) = self.image_size, pixels.shape[2:]
        if (height, width) == (size, size):
            return pixels
        # Two small matrix products: 1.5 times as fast as F.interpolate for 28 -> 224 on a CPU.
        rows = resize_matrix(height, size, pixels.device)
        columns = resize_matrix(width, size, pixels.device)
        return rows @ (pixels @ columns.T)
