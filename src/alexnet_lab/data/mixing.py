"""Mixup and cutmix of positions 2i and 2i + 1 of a global batch, as torchvision's MixUp and CutMix of these two images.

Sources: Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018; Yun et al., "CutMix: Regularization
Strategy to Train Strong Classifiers with Localizable Features", ICCV 2019; formulas of torchvision 0.29,
`transforms/v2/_augment.py`.

N samples of a micro-batch, P pairs of them, C channels, S the network's input size.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alexnet_lab.data.draws import Purpose
from alexnet_lab.data.keys import uniforms
from alexnet_lab.data.spec import MIXTURE_UNITS, Mixture
from alexnet_lab.errors import UserError

ATTEMPTS = 8
"""Proposals per draw from a gamma distribution: fewer than 5 % of them are rejected, so all eight are once in 10^10."""
WORDS_OF_GAMMA = 1 + 2 * ATTEMPTS
WORDS = 3 + 2 * WORDS_OF_GAMMA
"""Uniform numbers per pair: the kind, the place of the box, and two draws from a gamma distribution."""


@dataclass(frozen=True)
class Mixing:
    """How much training images are mixed; `conf/data/fashion_mnist.yaml` explains each. 0 turns a kind off.

    With both, each pair is mixed by one of them, with equal probability, as in torchvision's references.

    Raises:
        UserError: a value is out of range.
    """

    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0

    def __post_init__(self) -> None:
        for key in ("mixup_alpha", "cutmix_alpha"):
            value = getattr(self, key)
            if not 0 <= value < math.inf:
                raise UserError(f"data.{key} must not be negative, got {value}; 0 turns it off")

    def __bool__(self) -> bool:
        return self.mixup_alpha > 0 or self.cutmix_alpha > 0

    def draw(self, size: int, seed: int, epoch: int, samples: NDArray[np.int64], labels: NDArray[np.int64]) -> Mixture:
        """The mixture of a micro-batch of `samples` with these `labels`, both int64 [N], of images of `size`.

        The key of a pair is that of its first sample.
        """
        paired = len(samples) // 2 * 2
        partners = labels.copy()
        partners[:paired:2], partners[1:paired:2] = labels[1:paired:2], labels[:paired:2]
        shares = np.full(len(samples), MIXTURE_UNITS, np.int32)
        blend, boxes = shares.copy(), np.zeros((len(samples), 4), np.int64)
        rows = uniforms(seed, epoch, samples[:paired:2], Purpose.MIXING, WORDS).tolist()
        for pair, row in enumerate(rows):
            mine = slice(2 * pair, 2 * pair + 2)
            if self.mixup_alpha and (not self.cutmix_alpha or row[0] < 0.5):
                shares[mine] = blend[mine] = beta(self.mixup_alpha, row[3:])
            else:
                boxes[mine], shares[mine] = cut_box(size, beta(self.cutmix_alpha, row[3:]), row[1], row[2])
        return Mixture(
            torch.from_numpy(partners),
            torch.from_numpy(shares),
            torch.from_numpy(blend) if self.mixup_alpha else None,
            torch.from_numpy(boxes) if self.cutmix_alpha else None,
        )


UNMIXED = Mixing()


def beta(alpha: float, uniform: Sequence[float]) -> int:
    """A draw from the distribution Beta(alpha, alpha), in `MIXTURE_UNITS`, from `2 * WORDS_OF_GAMMA` uniforms.

    Made of two draws from a gamma distribution; their logarithms, since for a small alpha both draws may be 0.
    """
    first, second = (_log_gamma(alpha, uniform[start : start + WORDS_OF_GAMMA]) for start in (0, WORDS_OF_GAMMA))
    smaller = math.exp(-abs(first - second))
    share = (1.0 if first > second else smaller) / (1.0 + smaller)
    return round(share * MIXTURE_UNITS)


def _log_gamma(shape: float, uniform: Sequence[float]) -> float:
    """The logarithm of a draw from a gamma distribution.

    Source: Marsaglia and Tsang, "A Simple Method for Generating Gamma Variables", 2000; shapes below 1 by their note.
    """
    # Not 0 or 1, whose logarithm or quantile is infinite.
    boost, *proposals = (min(value + 2.0**-54, 1 - 2.0**-53) for value in uniform)
    more = math.log(boost) / shape if shape < 1 else 0.0
    d = (shape + 1 if shape < 1 else shape) - 1 / 3
    for normal, accepted in zip(proposals[::2], proposals[1::2], strict=True):
        x = NormalDist().inv_cdf(normal)
        root = 1 + x / math.sqrt(9 * d)
        if root > 0 and math.log(accepted) < x * x / 2 + d - d * root**3 + 3 * d * math.log(root):
            return math.log(d) + 3 * math.log(root) + more
    return math.log(d) + more


def cut_box(size: int, share: int, across: float, down: float) -> tuple[tuple[int, int, int, int], int]:
    """The partner's box, top, left, bottom, right, and the share of an image of `size` that it leaves.

    `share` and the result are in `MIXTURE_UNITS`; `across` and `down` are uniforms, for the centre.
    """
    half = int(0.5 * math.sqrt(1 - share / MIXTURE_UNITS) * size)
    x, y = int(across * size), int(down * size)
    top, left, bottom, right = max(y - half, 0), max(x - half, 0), min(y + half, size), min(x + half, size)
    left_over = 1 - (right - left) * (bottom - top) / (size * size)
    return (top, left, bottom, right), round(left_over * MIXTURE_UNITS)


def mixed(images: Tensor, mixture: Mixture) -> Tensor:
    """Images [N, C, S, S], floats of any range, each mixed with its partner; in the memory format of `images`."""
    paired = len(images) // 2 * 2
    partners = torch.empty_like(images)
    partners[:paired:2], partners[1:paired:2] = images[1:paired:2], images[:paired:2]
    partners[paired:] = images[paired:]
    output = images
    if mixture.blend is not None:
        share = mixture.blend.to(images.dtype)[:, None, None, None] / MIXTURE_UNITS
        output = (partners * (1 - share)).add_(images * share)
    if mixture.boxes is not None:
        output = torch.where(_within(mixture.boxes, images.shape[2]), partners, output)
    return output


def _within(boxes: Tensor, size: int) -> Tensor:
    """bool [N, 1, size, size], whether a pixel is in the box."""
    top, left, bottom, right = boxes[:, :, None].unbind(1)
    places = _places(size, boxes.device)
    rows, columns = (places >= top) & (places < bottom), (places >= left) & (places < right)
    return (rows[:, :, None] & columns[:, None, :])[:, None]


@lru_cache(maxsize=16)
def _places(size: int, device: torch.device) -> Tensor:
    """int64 [size]: 0, 1, ... on the device."""
    return torch.arange(size, device=device)
