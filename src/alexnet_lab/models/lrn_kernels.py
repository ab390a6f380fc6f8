"""Local response normalisation in two Triton kernels, one pass each, for maps on a GPU.

Forward reads x and writes y. Backward reads x and the gradient g and writes dx. Each program works on a tile of P
pixels and the C channels of one group, C rounded up to a power of two. The squares of neighbouring channels are read
again at shifted addresses, which the first-level cache serves; the backward pass exchanges its neighbours' terms
within the tile. There are no atomics, so the bits are the same in every run.

Half precision is computed in float32. Imported when the first map on a GPU arrives, for it imports Triton.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 1024
"""Pixels times channels per program. On an H200, the fastest of 128 to 2048 for both memory formats, with WARPS."""
WARPS = 8


@triton.jit
def _power(scale, beta: tl.constexpr):
    """scale^-beta"""
    if beta == 0.75:  # a fifth of the instructions of the general case
        root = tl.rsqrt(scale)
        return root * root * tl.rsqrt(root)
    return tl.exp2(-beta * tl.log2(scale))


@triton.jit
def _tile(pixels, side, image_stride, channel_stride, pixel_stride, channels, tile: tl.constexpr, width: tl.constexpr):
    """Addresses [P, C] of the program's numbers, its channels [1, C], and which of its pixels [P, 1] exist."""
    pixel = tl.program_id(0) * tile + tl.arange(0, tile)[:, None]
    image = pixel // side
    start = image.to(tl.int64) * image_stride + (pixel - image * side) * pixel_stride
    channel = tl.arange(0, width)[None, :]
    address = start + tl.program_id(1) * channels * channel_stride + channel * channel_stride
    return address, channel, pixel < pixels


@triton.jit
def _load(x, address, channel, exists, shift: tl.constexpr, channel_stride, channels):
    """float32 [P, C]: the channels `shift` further on, 0 outside of the group."""
    near = channel + shift
    mask = exists & (near >= 0) & (near < channels)
    return tl.load(x + (address + shift * channel_stride), mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _scale(x, address, channel, exists, channel_stride, channels, weight, k, before: tl.constexpr, after: tl.constexpr):
    """float32 [P, C]: k + weight * sum of x^2 over each channel's window."""
    squares = 0.0
    for shift in tl.static_range(-before, after + 1):
        value = _load(x, address, channel, exists, shift, channel_stride, channels)
        squares += value * value
    return k + weight * squares


@triton.jit
def _forward(
    x,
    y,
    pixels,
    side,
    image_stride,
    channel_stride,
    pixel_stride,
    channels,
    weight,
    k,
    beta: tl.constexpr,
    before: tl.constexpr,
    after: tl.constexpr,
    tile: tl.constexpr,
    width: tl.constexpr,
):
    address, channel, exists = _tile(pixels, side, image_stride, channel_stride, pixel_stride, channels, tile, width)
    scale = _scale(x, address, channel, exists, channel_stride, channels, weight, k, before, after)
    value = _load(x, address, channel, exists, 0, channel_stride, channels)
    result = value * _power(scale, beta)
    tl.store(y + address, result.to(y.dtype.element_ty), mask=exists & (channel < channels))


@triton.jit
def _backward(
    x,
    g,
    dx,
    pixels,
    side,
    image_stride,
    channel_stride,
    pixel_stride,
    channels,
    weight,
    k,
    beta: tl.constexpr,
    before: tl.constexpr,
    after: tl.constexpr,
    tile: tl.constexpr,
    width: tl.constexpr,
):
    """g s^-beta - 2 beta weight x (sum of g x s^(-beta - 1) over the channels whose windows contain this one)"""
    address, channel, exists = _tile(pixels, side, image_stride, channel_stride, pixel_stride, channels, tile, width)
    scale = _scale(x, address, channel, exists, channel_stride, channels, weight, k, before, after)
    value = _load(x, address, channel, exists, 0, channel_stride, channels)
    direct = _load(g, address, channel, exists, 0, channel_stride, channels) * _power(scale, beta)
    inside = exists & (channel < channels)
    term = tl.where(inside, direct * value / scale, 0.0)
    shared = term
    for shift in tl.static_range(-after, before + 1):
        if shift != 0:
            near = channel + shift
            held = (near >= 0) & (near < width)
            index = tl.where(held & (tl.arange(0, tile)[:, None] >= 0), near, 0)  # [P, C], as gather requires
            shared += tl.where(held, tl.gather(term, index, 1), 0.0)
    result = direct - 2 * beta * weight * value * shared
    tl.store(dx + address, result.to(dx.dtype.element_ty), mask=inside)


def forward(x: Tensor, size: int, alpha: float, beta: float, k: float, groups: int) -> Tensor:
    """The normalised map, of the dtype and format of x, dense float [N, C, H, W] on a GPU."""
    y = torch.empty_like(x)
    _launch(_forward, (x, y), size, alpha, beta, k, groups)
    return y


def backward(x: Tensor, grad: Tensor, size: int, alpha: float, beta: float, k: float, groups: int) -> Tensor:
    """The gradient of x, given that of the result, which has the dtype and strides of x."""
    dx = torch.empty_like(x)
    _launch(_backward, (x, grad, dx), size, alpha, beta, k, groups)
    return dx


def _launch(kernel: Any, maps: tuple[Tensor, ...], size: int, alpha: float, beta: float, k: float, groups: int) -> None:
    x = maps[0]
    if x.numel() == 0:
        return
    images, all_channels, height, width = x.shape
    channels, side = all_channels // groups, height * width
    width = triton.next_power_of_2(channels)
    tile = max(1, TILE // width)
    pixel_stride, channel_stride = (1, side) if x.is_contiguous() else (all_channels, 1)
    grid = (triton.cdiv(images * side, tile), groups)
    strides = (all_channels * side, channel_stride, pixel_stride)
    with torch.cuda.device_of(x):
        kernel[grid](
            *maps,
            images * side,
            side,
            *strides,
            channels,
            alpha / size,
            k,
            beta=beta,
            before=size // 2,
            after=(size - 1) // 2,
            tile=tile,
            width=width,
            num_warps=WARPS,
        )
