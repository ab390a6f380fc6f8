"""The loss over a rising learning rate: its smoothed curve, its divergence, and the learning rate that it suggests.

n optimizer steps; learning rates are evenly spaced in their logarithm.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Curve = NDArray[np.float64]

DECAY = 0.9
DIVERGED = 4.0
"""A loss of this many times the lowest one has diverged; both are smoothed."""
WIDTH = 0.1
"""Standard deviation of the smoothing, in decades of the learning rate."""
FIRST = 0.5
"""The decades at the beginning whose mean loss is that of the initial weights."""
RISE = 0.15
"""The loss rises where it has lost this part of what it had fallen."""
DEVIATIONS = 4.0
"""Standard deviations of the smoothed loss below which a change is noise."""
PART = 0.9
"""The suggested learning rate is where the loss has made this part of its fall below that of guessing."""


class Suggestion(NamedTuple):
    """A learning rate to train with, to two digits."""

    rate: float
    has_learned: bool
    """Whether the loss fell clearly below that of guessing before it rose; otherwise `rate` is where it rises."""


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


def suggestion(rates: Sequence[float], losses: Sequence[float], guessing: float) -> Suggestion | None:
    """The learning rate that the losses [n] at the rates [n] suggest; None if the loss never falls.

    It is where the loss has almost ended its fall. The fall to `guessing`, the loss of the class frequencies as
    prediction, does not count: the last bias alone learns that, at small learning rates. If the loss rises before it
    has fallen below `guessing`, the suggestion is where it rises.
    """
    spacing = math.log10(rates[1] / rates[0]) if len(rates) > 1 else math.inf
    first = max(5, round(FIRST / spacing))
    if len(losses) <= first:
        return None
    start = float(np.mean(losses[:first]))
    curve = np.minimum(losses, 2 * start - np.min(losses))  # a single huge loss would hide those before it
    mean = smoothed(rates, curve)
    # From differences, which a slope hardly changes, of the first losses, whose noise is the largest.
    deviation = float(np.std(np.diff(curve[: 2 * first]))) / math.sqrt(2)
    noise = deviation / math.sqrt(max(1.0, 2 * math.sqrt(math.pi) * WIDTH / spacing))  # of a mean over as many steps
    least = max(DEVIATIONS * noise, 1e-6 * start)
    lowest, before = np.minimum.accumulate(mean), min(start, guessing)
    fallen = start - lowest
    # A rise after less than half of the fall is noise, or passes.
    rise = _first(_has_risen(mean, fallen, least) & (fallen > fallen[-1] / 2))
    if before - lowest[:rise][-1] <= least:
        return None if rise is None else Suggestion(_two_digits(rates[rise]), has_learned=False)
    # Where the loss recovers from a rise, the suggestion is between the ends of its fall before it and of all of it.
    early = lowest[: _first(_has_risen(mean, before - lowest, least))]
    ends = [rates[int(np.argmax(part <= before - PART * (before - part[-1])))] for part in (early, lowest)]
    return Suggestion(_two_digits(math.sqrt(ends[0] * ends[1])), has_learned=True)


def _has_risen(mean: Curve, fallen: Curve, least: float) -> NDArray[np.bool_]:
    above = mean - np.minimum.accumulate(mean)
    risen: NDArray[np.bool_] = (fallen > least) & (above > np.maximum(RISE * fallen, least))
    return risen


def _first(marked: NDArray[np.bool_]) -> int | None:
    return int(np.argmax(marked)) if marked.any() else None


def _two_digits(rate: float) -> float:
    return float(f"{rate:.2g}")
