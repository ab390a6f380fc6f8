"""The first convolution's kernels, as in the paper's figure 3.

Shapes: O kernels, C input channels, K their side.
"""

import math

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from alexnet_lab.pictures.lettering import PALE, PAPER, font

SIDE, FEW = 44, 16
"""Of an enlarged kernel at least, pixels; of `FEW` kernels twice as many."""
GAP, MARGIN, CAPTION = 6, 16, 26


def filters_picture(weight: Tensor, towers: int = 1) -> Image.Image:
    """float [O, C, K, K], each kernel scaled by its own largest weight, with grey for zero.

    Three channels are shown as colours, others by their mean. The towers' kernels, O / towers each in the order of the
    outputs, stand beside each other.
    """
    pixels = _pixels(weight)
    of_tower = len(pixels) // towers
    columns = _columns(of_tower)
    lines = -(-of_tower // columns)
    factor = -(-SIDE * (1 + (len(pixels) <= FEW)) // weight.shape[-1])
    step = weight.shape[-1] * factor + GAP
    block, head = columns * step - GAP, CAPTION if towers > 1 else 0
    size = (towers * (block + 2 * MARGIN), lines * step - GAP + 2 * MARGIN + head)
    picture = Image.new("RGB", size, PAPER)
    for number, kernel in enumerate(pixels):
        tower, place = divmod(number, of_tower)
        left = tower * (block + 2 * MARGIN) + MARGIN + place % columns * step
        top = MARGIN + head + place // columns * step
        enlarged = Image.fromarray(kernel.numpy()).resize((step - GAP, step - GAP), Image.Resampling.NEAREST)
        picture.paste(enlarged, (left, top))
    if towers > 1:
        draw = ImageDraw.Draw(picture)
        for tower in range(towers):
            middle = (tower * (block + 2 * MARGIN) + MARGIN + block // 2, MARGIN + head // 2 - 4)
            draw.text(middle, f"tower {tower + 1}", PALE, font(16), anchor="mm")
    return picture


def _pixels(weight: Tensor) -> Tensor:
    """uint8 [O, K, K, 3]"""
    weight = weight.detach().float().cpu()
    if weight.shape[1] != 3:
        weight = weight.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    largest = weight.abs().amax((1, 2, 3), keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    return (127.5 + 127.5 * weight / largest).round().nan_to_num(0).byte().permute(0, 2, 3, 1).contiguous()


def _columns(number: int) -> int:
    """The nearest to a square that leaves no hole, if one is not too long: 48 -> 8, 64 -> 8, 96 -> 12, 6 -> 3."""
    start = math.ceil(math.sqrt(number))
    fitting = [columns for columns in range(start, 2 * start + 1) if number % columns == 0]
    return fitting[0] if fitting else start
