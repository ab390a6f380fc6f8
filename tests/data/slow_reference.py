"""The reference definition of a sample's pixels, for one sample at a time, with plain Python numbers and loops.

It shares no code with the package.
"""

import math
from statistics import NormalDist

import numpy as np

CROP, FLIP, ROTATION, SCALING, JITTER, COLOUR = range(6)


def mix(word):
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    word = (word ^ word >> 27) * 0x94D049BB133111EB % 2**64
    return word ^ word >> 31


def words(seed, epoch, sample, purpose, count):
    golden, state = 0x9E3779B97F4A7C15, 0
    for part in (seed, epoch, purpose, sample):
        state = mix((state + golden + part) % 2**64)
    return [mix((state + golden * number) % 2**64) for number in range(1, count + 1)]


def uniforms(*key):
    return [(word >> 11) / 2**53 for word in words(*key)]


def normals(*key):
    return [NormalDist().inv_cdf(uniform + 2**-54) for uniform in uniforms(*key)]


def box(seed, epoch, sample, side=256):
    """torchvision's RandomResizedCrop.get_params with the sample's random numbers: top, left, height, width."""
    numbers = uniforms(seed, epoch, sample, CROP, 22)
    for area_draw, ratio_draw in zip(numbers[:10], numbers[10:20], strict=True):
        area = side * side * (0.08 + 0.92 * area_draw)
        ratio = math.exp(math.log(3 / 4) + ratio_draw * (math.log(4 / 3) - math.log(3 / 4)))
        width, height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < width <= side and 0 < height <= side:
            return [int(numbers[20] * (side - height + 1)), int(numbers[21] * (side - width + 1)), height, width]
    return [0, 0, side, side]


def train_image(image, seed, epoch, sample, *, crop_size, flip, colour, eigenvalues, eigenvectors, mean_image, at_crop):
    """float64 [3, crop_size, crop_size] in grey levels, of uint8 [256, 256, 3]; std is 1/255."""
    room = 256 - crop_size
    top, left = (int(uniform * (room + 1)) for uniform in uniforms(seed, epoch, sample, CROP, 2))
    mirrored = uniforms(seed, epoch, sample, FLIP, 1)[0] < flip
    pixels = image[top : top + crop_size, left : left + crop_size].astype(np.float64)
    mean = mean_image[room // 2 :, room // 2 :][:crop_size, :crop_size].astype(np.float64)
    if at_crop:
        pixels -= mean_image[top : top + crop_size, left : left + crop_size]
    if mirrored:
        pixels = pixels[:, ::-1]
    if not at_crop:
        pixels = pixels - mean
    amounts = [0.1 * normal for normal in normals(seed, epoch, sample, COLOUR, 3)]
    lengths = eigenvalues if colour == "paper" else [math.sqrt(value) for value in eigenvalues]
    shift = [sum(eigenvectors[c][i] * amounts[i] * lengths[i] for i in range(3)) for c in range(3)]
    pixels = pixels + 255 * np.array(shift)
    return (pixels if colour == "paper" else pixels / 1.1).transpose(2, 0, 1)
