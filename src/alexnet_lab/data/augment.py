"""Image operations on a whole batch, with separate parameters per sample. Pure functions, on any device.

None depends on torch's default dtype, which the training in another thread may change (trainer.precision=64-true).

N images, C channels, H W stored size, S output size. Pixels are floats in [0, 1] unless stated otherwise.
"""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet_lab.data.spec import Draws

LUMA = (0.2989, 0.587, 0.114)
"""Weights of R, G, B in grey, ITU-R BT.601 as rounded by torchvision."""


@lru_cache(maxsize=64)
def per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """float32 [C, 1, 1], copied to the device once: a copy per step would make the host wait for the GPU."""
    return torch.tensor(values, dtype=torch.float32, device=device).view(-1, 1, 1)


def unit(pixels: Tensor) -> Tensor:
    """Grey levels to float32 in [0, 1]; memory that is already float32 may be reused."""
    # On a CPU twice as fast as a division that converts; elsewhere that is one kernel instead of two.
    return pixels.float().div_(255) if pixels.device.type == "cpu" else pixels / per_channel((255.0,), pixels.device)


def flip(images: Tensor, chosen: Tensor) -> Tensor:
    """Mirrors the `chosen`, bool [N], of images [N, C, H, W] of any type."""
    mirrored, chosen = images.flip(3), chosen[:, None, None, None]
    if images.dtype == torch.uint8 and images.device.type == "cpu":
        # Swaps the differing bits: takes a third of the time of `where` on a CPU.
        return images ^ ((images ^ mirrored) & chosen.to(torch.uint8).neg())
    return torch.where(chosen, mirrored, images)


def shift(images: Tensor, offsets: Tensor) -> Tensor:
    """Images [N, C, H, W] of any type seen through a window moved by `offsets`, int64 [N, 2]: down, right.

    Pixels outside of the image are 0: torchvision's RandomCrop of the image's own size, after padding.
    """
    for dimension, size in ((2, images.shape[2]), (3, images.shape[3])):
        places = torch.arange(size, device=images.device) + offsets[:, dimension - 2, None]
        inside = (places >= 0) & (places < size)
        shape = [len(images), 1, 1, 1]
        shape[dimension] = size
        index = places.clamp(0, size - 1).view(shape).expand(images.shape)
        images = images.gather(dimension, index) * inside.view(shape)
    return images


def windows(image: Tensor, corners: Tensor, size: int) -> Tensor:
    """[N, C, size, size]: cut out of one image [C, H, W] at `corners`, int64 [N, 2], top and left."""
    places = image.unfold(1, size, 1).unfold(2, size, 1)  # C, top, left, size, size: a view of all windows
    return places[:, corners[:, 0], corners[:, 1]].transpose(0, 1)


def resize_boxes(images: Tensor, boxes: Tensor, size: int, mirrored: Tensor | None = None) -> Tensor:
    """float32 [N, C, size, size]: the `boxes`, [N, 4] of top, left, height and width, each resized to a square.

    Bilinear with antialiasing, reading nothing outside of the box, as torchvision's RandomResizedCrop of floats; of
    bytes and PIL images that rounds to grey levels. The images, [N, C, H, W], may be of any type. Those chosen by
    `mirrored`, bool [N], are mirrored.
    """
    if images.device.type != "cpu":
        return resize_by_products(images, boxes, size, mirrored)
    resized = _resize_each(images, boxes, size)
    return resized if mirrored is None else flip(resized, mirrored)


def _resize_each(images: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Image by image: on a CPU five times as fast as the products, which also process pixels outside the boxes."""
    resized = torch.empty((*images.shape[:2], size, size), dtype=torch.float32)
    for place, (top, left, height, width) in enumerate(boxes.tolist()):
        box = images[place, None, :, top : top + height, left : left + width].contiguous().float()
        resized[place] = F.interpolate(box, (size, size), mode="bilinear", antialias=True)[0]
    return resized


def resize_by_products(images: Tensor, boxes: Tensor, size: int, mirrored: Tensor | None = None) -> Tensor:
    """`resize_boxes` for all images at once: two matrix products each, a tenth of AlexNet's forward pass.

    In TF32 (`trainer.matmul_precision=high`) a pixel differs by at most 0.2 grey levels, since bytes are exact in it.
    """
    number, channels, height, width = images.shape
    rows, columns = _resize_matrices(boxes, max(height, width), size, mirrored)
    # In the order [N, H, C, W], each product is one of two matrices per image, and nothing is copied for it.
    lines = images.transpose(1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    across = lines.reshape(number, height * channels, width) @ columns[..., :width].mT
    both = rows[..., :height] @ across.view(number, height, channels * size)
    return both.view(number, size, channels, size).transpose(1, 2)


def _resize_matrices(boxes: Tensor, stored: int, size: int, mirrored: Tensor | None) -> Tensor:
    """[2, N, size, stored]: interpolates the rows, and the columns, of each box; see `resize_by_products`."""
    start, length = boxes.T.float()[..., None, None].split(2)
    step = length / size
    centres = _middles(size, boxes.device)[:, None] * step  # counted from the start of the box, as the pixels
    if mirrored is not None:
        centres[1] = torch.where(mirrored[:, None, None], centres[1].flip(1), centres[1])
    pixels = _middles(stored, boxes.device) - start
    pixels.masked_fill_((pixels < 0) | (pixels > length), math.inf)
    weights = (1 - (pixels - centres).abs_().div_(step.clamp(min=1))).clamp_(min=0)
    return weights.div_(weights.sum(3, keepdim=True))


@lru_cache(maxsize=16)
def _middles(number: int, device: torch.device) -> Tensor:
    """float32 [number]: 0.5, 1.5, ... on the device."""
    return torch.arange(number, dtype=torch.float32, device=device) + 0.5


def rotate_and_scale(pixels: Tensor, degrees: Tensor | None, factor: Tensor | None) -> Tensor:
    """Turns [N, C, S, S] counter-clockwise about the centre, and enlarges by `factor`; both [N] or None.

    Bilinear; what comes in from outside repeats the edge, as Keras's `fill_mode="nearest"`.
    """
    number = pixels.new_zeros(len(pixels))
    angle = number if degrees is None else degrees.to(pixels.dtype).deg2rad()
    factor = number + 1 if factor is None else factor.to(pixels.dtype)
    cos, sin = angle.cos() / factor, angle.sin() / factor
    # From output to input: the inverse of the transformation of the picture; y points down.
    theta = torch.stack([torch.stack([cos, -sin, number], 1), torch.stack([sin, cos, number], 1)], 1)
    if len(pixels) == 0:  # affine_grid rejects it
        return pixels
    grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)


def jitter(pixels: Tensor, factors: Tensor) -> Tensor:
    """Brightness, contrast and saturation of RGB images [N, 3, S, S] times `factors`, [N, 3], in this order.

    Grey images, [N, 1, S, S], have no saturation.

    Each as torchvision's `adjust_*`, cut off at 0 and 1; torchvision's ColorJitter draws the order, too.
    """
    brightness, contrast, saturation = factors.to(pixels.dtype)[:, :, None, None, None].unbind(1)
    pixels = (pixels * brightness).clamp(0, 1)
    mean = _grey(pixels).mean((1, 2, 3), keepdim=True)
    pixels = (mean + contrast * (pixels - mean)).clamp(0, 1)
    grey = _grey(pixels)
    return (grey + saturation * (pixels - grey)).clamp(0, 1)


def _grey(pixels: Tensor) -> Tensor:
    """[N, 3, S, S] or [N, 1, S, S] to [N, 1, S, S]."""
    if pixels.shape[1] == 1:
        return pixels
    return (pixels * per_channel(LUMA, pixels.device)).sum(1, keepdim=True)


def colour_shift(amounts: Tensor, lengths: Tensor, vectors: Tensor) -> Tensor:
    """[N, C]: what to add to the channels (R, G, B) of every pixel of each image (paper, section 4.1).

    `amounts` a, [N, C], of the principal components, whose directions are the columns of `vectors` p, [C, C], and whose
    `lengths`, [C], are the eigenvalues or their square roots: [p1 p2 p3] [a1 l1, a2 l2, a3 l3]^T.
    """
    return (amounts.to(vectors.dtype) * lengths) @ vectors.T


@lru_cache(maxsize=16)
def _corners(corners: tuple[tuple[int, int], ...], device: torch.device) -> Tensor:
    """int64 [5, 2], copied to the device once."""
    return torch.tensor(corners, device=device)


def ten_views(images: Tensor, size: int) -> tuple[Tensor, Draws]:
    """Four corners and the centre, then the same to be mirrored: [N * 10, C, size, size], each image's ten together.

    The pipeline does the mirroring; the draws tell it where each view was cut out.
    """
    below, right = images.shape[2] - size, images.shape[3] - size
    corners = [(0, 0), (0, right), (below, 0), (below, right), (below // 2, right // 2)]
    views = torch.stack([images[:, :, top : top + size, left : left + size] for top, left in corners * 2], 1)
    corner = _corners(tuple(corners), images.device).repeat(2 * len(images), 1)
    mirrored = torch.arange(10, device=images.device).repeat(len(images)) >= 5
    return views.flatten(0, 1), Draws(corner=corner, flip=mirrored)
