"""Calibration: whether a network that is 80 % sure is right 80 % of the time.

Source: Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017 (arXiv:1706.04599),
section 2: 15 bins of equal width, the first of them (0, 1/15]. The confidence of a prediction is the probability of the
most probable class. The expected calibration error (ECE) is the sum over the bins of |accuracy - confidence|, weighted
by the share of the images in the bin.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from alexnet_lab.rows import Rows

BINS = 15


class Bin(NamedTuple):
    """The images whose confidence is above `low` and at most `high`."""

    low: float
    high: float
    images: int
    confidence: float | None
    """The mean; None without images."""
    accuracy: float | None
    """The fraction of them whose most probable class is the true one."""


def calibration(rows: Rows) -> list[Bin]:
    """The bins of `rows`."""
    edges = np.linspace(0, 1, BINS + 1)
    confidences, right = rows.probabilities[:, 0], rows.top1
    places = np.clip(np.searchsorted(edges, confidences, side="left") - 1, 0, BINS - 1)
    bins = []
    for place, (low, high) in enumerate(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)):
        inside = places == place
        means = (float(confidences[inside].mean()), float(right[inside].mean())) if inside.any() else (None, None)
        bins.append(Bin(low, high, int(inside.sum()), *means))
    return bins


def expected_error(bins: Sequence[Bin]) -> float:
    """The expected calibration error, a fraction of 1."""
    gaps = [
        (one.images, one.accuracy - one.confidence)
        for one in bins
        if one.accuracy is not None and one.confidence is not None
    ]
    return sum(images * abs(gap) for images, gap in gaps) / sum(images for images, _ in gaps)
