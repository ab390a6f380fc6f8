r"""Confidence intervals of a difference between two groups of runs.

- **Welch** where both have several seeds: mean difference +- t * sqrt(s1^2/n1 + s2^2/n2), with the
  Welch-Satterthwaite degrees of freedom. Source: B. L. Welch, "The generalization of 'Student's' problem when several
  different population variances are involved", Biometrika 34 (1947). It covers everything that the seed changes, for
  the images at hand.
- **Student** where one has several seeds and the other a single one: the deviation of the several is taken for both
  (two-sample t with the pooled variance, whose formula needs only n1 + n2 - 2 >= 1).
- **images** where both are single runs, for accuracies: nothing is known of the seeds, so it covers the choice of the
  evaluated images alone. Method 10 (hybrid of two Wilson score intervals) of R. G. Newcombe, "Interval estimation for
  the difference between independent proportions", Statistics in Medicine 17 (1998). Two networks are mostly right on
  the same images, so that this interval for independent samples is wider than it had to be.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

Method = Literal["Welch", "Student", "images"]


@dataclass(frozen=True)
class Difference:
    """A difference and its interval; `method`, `low`, `high` are None where there is nothing to derive one from."""

    value: float
    low: float | None = None
    high: float | None = None
    method: Method | None = None


def difference(
    ours: Sequence[float],
    theirs: Sequence[float],
    confidence: float,
    images: tuple[int | None, int | None] = (None, None),
) -> Difference:
    """The mean of `ours` less that of `theirs`; `images`: how many each accuracy is over, None where not known."""
    value = statistics.fmean(ours) - statistics.fmean(theirs)
    if len(ours) > 1 and len(theirs) > 1:
        return Difference(value, *_around(value, _welch(ours, theirs, confidence)), "Welch")
    if len(ours) > 1 or len(theirs) > 1:
        several = ours if len(ours) > 1 else theirs
        error = statistics.stdev(several) * math.sqrt(1 + 1 / len(several))
        return Difference(value, *_around(value, error * t_quantile(confidence, len(several) - 1)), "Student")
    if images[0] and images[1]:
        low, high = _newcombe(ours[0], images[0], theirs[0], images[1], confidence)
        return Difference(value, low, high, "images")
    return Difference(value)


def _around(value: float, half: float) -> tuple[float, float]:
    return value - half, value + half


def _welch(ours: Sequence[float], theirs: Sequence[float], confidence: float) -> float:
    """Half the interval's width."""
    parts = [(statistics.variance(values) / len(values), len(values) - 1) for values in (ours, theirs)]
    variance = sum(part for part, _ in parts)
    if variance == 0:
        return 0.0
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts)
    return t_quantile(confidence, freedom) * math.sqrt(variance)


def _newcombe(p1: float, n1: int, p2: float, n2: int, confidence: float) -> tuple[float, float]:
    (low1, high1), (low2, high2) = wilson(p1, n1, confidence), wilson(p2, n2, confidence)
    return p1 - p2 - math.hypot(p1 - low1, high2 - p2), p1 - p2 + math.hypot(high1 - p1, p2 - low2)


def wilson(p: float, n: int, confidence: float) -> tuple[float, float]:
    """The score interval of a proportion `p` of `n`. Source: E. B. Wilson, JASA 22 (1927)."""
    z = _normal_quantile(confidence)
    centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return (centre - half) / scale, (centre + half) / scale


@lru_cache(maxsize=1024)
def t_quantile(confidence: float, freedom: float) -> float:
    """The t that holds `confidence` of Student's distribution with `freedom` >= 1 degrees between -t and t.

    Newton's method from the normal quantile, which lies below; on the concave upper half it rises to the root.
    """
    t = _normal_quantile(confidence)
    scale = 2 * math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
    for _ in range(100):
        angle = math.atan(t / math.sqrt(freedom))
        between = scale * _integral_of_cosine_power(angle, freedom - 1)
        density = scale / math.sqrt(freedom) * math.cos(angle) ** (freedom + 1)
        step = (confidence - between) / density
        t += step
        if abs(step) < 1e-10 * t:
            break
    return t


def _integral_of_cosine_power(end: float, power: float, intervals: int = 400) -> float:
    """Simpson's rule for cos^power from 0 to `end`; with t = sqrt(v) tan(x) it is Student's integral."""
    width = end / intervals
    values = [math.cos(i * width) ** power for i in range(intervals + 1)]
    return width / 3 * (values[0] + 4 * sum(values[1::2]) + 2 * sum(values[2:-1:2]) + values[-1])


def _normal_quantile(confidence: float) -> float:
    return statistics.NormalDist().inv_cdf((1 + confidence) / 2)
