"""The kernels of the first convolution, as in the paper's figure 3.

Shapes: O kernels, C input channels, K kernel size.
"""

import math

import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

from alexnet_lab.pictures.lettering import PALE, PAPER, font

SIDE, FEW = 44, 16
"""Smallest side of an enlarged kernel in pixels; doubled for at most `FEW` kernels."""
GAP, MARGIN, CAPTION = 6, 10, 26


def filters_picture(weight: Tensor, towers: int = 1) -> Image.Image:
    """The kernels, float [O, C, K, K], each scaled by its largest absolute weight; zero is grey.

    Three channels are shown as colours, any other number by their mean. The towers are shown side by side, O / towers
    kernels each.
    """
    pixels = _pixels(weight)
    factor = -(-SIDE * (1 + (len(pixels) <= FEW)) // weight.shape[-1])
    enlarged = pixels.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    columns = _columns(len(pixels) // towers)
    grids = [to_pil_image(make_grid(tower, columns, GAP, pad_value=255)) for tower in enlarged.chunk(towers)]
    width, head = grids[0].width + 2 * MARGIN, CAPTION if towers > 1 else 0
    picture = Image.new("RGB", (towers * width, grids[0].height + 2 * MARGIN + head), PAPER)
    for number, grid in enumerate(grids):
        picture.paste(grid, (number * width + MARGIN, head + MARGIN))
        if towers > 1:
            place = (number * width + width // 2, MARGIN + GAP + head // 2 - 4)
            ImageDraw.Draw(picture).text(place, f"tower {number + 1}", PALE, font(16), anchor="mm")
    return picture


def _pixels(weight: Tensor) -> Tensor:
    """uint8 [O, 3, K, K]"""
    weight = weight.detach().float().cpu()
    if weight.shape[1] != 3:
        weight = weight.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    largest = weight.abs().amax((1, 2, 3), keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    return (127.5 + 127.5 * weight / largest).round().nan_to_num(0).byte()


def _columns(number: int) -> int:
    """The most square arrangement without a hole, unless its rows are too long: 48 -> 8, 64 -> 8, 96 -> 12, 6 -> 3."""
    start = math.ceil(math.sqrt(number))
    fitting = [columns for columns in range(start, 2 * start + 1) if number % columns == 0]
    return fitting[0] if fitting else start
