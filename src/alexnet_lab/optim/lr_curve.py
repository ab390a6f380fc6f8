"""The loss over a rising learning rate: its smoothed curve, its divergence, and the learning rate that it suggests.

n optimizer steps; learning rates are evenly spaced in their logarithm.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Curve = NDArray[np.float64]

DECAY = 0.9
DIVERGED = 4.0
"""A loss of this many times the lowest one has diverged; both are smoothed."""
WIDTH = 0.1
"""Standard deviation of the smoothing, in decades of the learning rate."""


class Divergence:
    """Notices, step by step, that the loss diverges: its average over the last ten or so steps."""

    def __init__(self) -> None:
        self._sum = self._weight = 0.0
        self._lowest = math.inf

    def add(self, loss: float) -> bool:
        """Whether the loss has diverged with this step's `loss`, or is not finite."""
        self._sum, self._weight = DECAY * self._sum + (1 - DECAY) * loss, DECAY * self._weight + 1 - DECAY
        average = self._sum / self._weight  # without the pull of the zero at the beginning
        if not math.isfinite(average):
            return True
        self._lowest = min(self._lowest, average)
        return average > DIVERGED * self._lowest


def smoothed(rates: Sequence[float], losses: Sequence[float]) -> Curve:
    """Gaussian means of the losses over the logarithm of the learning rates; both [n], finite. Without lag."""
    decades = np.log10(rates)
    weights = np.exp(-0.5 * ((decades[:, None] - decades[None, :]) / WIDTH) ** 2)
    mean: Curve = weights @ np.asarray(losses) / weights.sum(1)
    return mean


def suggestion(rates: Sequence[float], losses: Sequence[float]) -> float | None:
    """The learning rate at which the smoothed loss falls most steeply, to two digits; None if it never falls."""
    if len(losses) < 3:
        return None
    mean = np.minimum.accumulate(smoothed(rates, losses))
    slope = np.gradient(mean, np.log10(rates))
    best = int(np.argmin(slope))
    return float(f"{rates[best]:.2g}") if slope[best] < 0 else None
