"""A Grad-CAM map over its image.

Shapes: C channels, H the side of the image that the network sees, h x w the map.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from alexnet_lab.pictures.sheet import SIDE, square
from alexnet_lab.pictures.tiles import picture_of

STOPS = np.linspace(0, 1, 5)
COLOURS = np.array([(0, 0, 131), (0, 110, 255), (40, 230, 170), (255, 210, 0), (190, 0, 0)], np.float32)
"""RGB of a value in [0, 1] at `STOPS`: blue, cyan, yellow, red."""
STRENGTH = 0.65
"""Opacity of the colours where the map is largest; they are transparent where it is 0."""


def heat_picture(pixels: NDArray[np.uint8], values: Tensor) -> Image.Image:
    """An RGB picture of `SIDE` pixels: the image, grey, with the map over it, scaled to its largest value.

    Args:
        pixels: uint8 [C, H, H].
        values: float32 [h, w], at least 0, on the host; enlarged bilinearly to the image.
    """
    largest = float(values.max())
    heat = np.asarray(Image.fromarray(values.numpy()).resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    heat = np.clip(heat / largest, 0, 1) if largest > 0 else np.zeros_like(heat)
    colours = np.stack([np.interp(heat, STOPS, COLOURS[:, channel]) for channel in range(3)], 2)
    grey = np.asarray(square(picture_of(torch.tensor(pixels)).convert("L")), np.float32)
    opacity = STRENGTH * np.sqrt(heat)[..., None]
    return Image.fromarray(np.rint(grey * (1 - opacity) + colours * opacity).astype(np.uint8))
