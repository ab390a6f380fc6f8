r"""Confidence intervals of the difference between two groups of runs.

- **Welch**, if both groups have several seeds: Student's t with the standard error sqrt(s1^2/n1 + s2^2/n2) and the
  Welch-Satterthwaite degrees of freedom. Source: B. L. Welch, "The generalization of 'Student's' problem when several
  different population variances are involved", Biometrika 34 (1947). The interval covers everything that the seed
  changes, for the given test images.
- **Student**, if only one group has several seeds: its standard deviation is used for both groups (two-sample t test
  with pooled variance, which needs only n1 + n2 - 2 >= 1).
- **images**, if both groups are single runs, for accuracies: the variation over seeds is unknown, so the interval
  covers only the choice of the test images. Method 10 (hybrid of two Wilson score intervals) of R. G. Newcombe,
  "Interval estimation for the difference between independent proportions", Statistics in Medicine 17 (1998). The
  interval assumes independent samples. Two networks are mostly right on the same images, so it is wider than necessary.
- **paired**, if both single runs have rows of the same images: see `alexnet_lab.report.paired`.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from alexnet_lab.command_line import install
from alexnet_lab.errors import UserError

Method = Literal["Welch", "Student", "images", "paired"]


@dataclass(frozen=True)
class Difference:
    """A difference and its interval; `method`, `low`, `high` are None if no interval can be computed.

    `p` is that of McNemar's test; None if the method is not `paired`.
    """

    value: float
    low: float | None = None
    high: float | None = None
    method: Method | None = None
    p: float | None = None


def difference(
    ours: Sequence[float],
    theirs: Sequence[float],
    confidence: float,
    images: tuple[int | None, int | None] = (None, None),
) -> Difference:
    """The mean of `ours` minus the mean of `theirs`.

    Args:
        confidence: level of the interval, in (0, 1).
        images: the number of test images behind each accuracy; None if unknown.

    Raises:
        UserError: the interval needs scipy, which is not installed.
    """
    value = statistics.fmean(ours) - statistics.fmean(theirs)
    if len(ours) > 1 and len(theirs) > 1:
        (a, n), (b, m) = ((statistics.variance(group) / len(group), len(group) - 1) for group in (ours, theirs))
        freedom = (a + b) ** 2 / (a**2 / n + b**2 / m) if a + b else 1
        return Difference(value, *_student(value, math.sqrt(a + b), freedom, confidence), "Welch")
    if len(ours) > 1 or len(theirs) > 1:
        several = ours if len(ours) > 1 else theirs
        error = statistics.stdev(several) * math.sqrt(1 + 1 / len(several))
        return Difference(value, *_student(value, error, len(several) - 1, confidence), "Student")
    if images[0] and images[1]:
        return Difference(value, *_newcombe(ours[0], images[0], theirs[0], images[1], confidence), "images")
    return Difference(value)


def _student(value: float, error: float, freedom: float, confidence: float) -> tuple[float, float]:
    if find_spec("scipy") is None:
        raise UserError(f"baseline=... with several seeds needs the package scipy: {install('compare')}")
    from scipy.stats import t

    half = error * float(t.ppf((1 + confidence) / 2, freedom))
    return value - half, value + half


def _newcombe(p1: float, n1: int, p2: float, n2: int, confidence: float) -> tuple[float, float]:
    (low1, high1), (low2, high2) = wilson(p1, n1, confidence), wilson(p2, n2, confidence)
    return p1 - p2 - math.hypot(p1 - low1, high2 - p2), p1 - p2 + math.hypot(high1 - p1, p2 - low2)


def wilson(p: float, n: int, confidence: float) -> tuple[float, float]:
    """The score interval of a proportion `p` of `n`. Source: E. B. Wilson, JASA 22 (1927)."""
    z = statistics.NormalDist().inv_cdf((1 + confidence) / 2)
    centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return (centre - half) / scale, (centre + half) / scale


def p_text(p: float) -> str:
    """A p-value with three digits."""
    return f"{p:.3g}" if p else "< 1e-300"
