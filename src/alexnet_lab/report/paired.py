r"""Two networks on the same images: McNemar's exact test and the interval of the difference of their accuracies.

Of N images, b are right only for the first network and c only for the second.

- **Test.** If the networks are equally good, an image on which they differ is as likely one of b as one of c. p is the
  probability of a split at least as uneven, both ways: twice the lower tail of Binomial(b + c, 1/2), at most 1. Source:
  Q. McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
  Psychometrika 12 (1947); exact and two-sided, without the mid-p correction.
- **Interval.** With half an image added to each of the four cells, b' = b + 1/2, c' = c + 1/2 and N' = N + 2:
  (b' - c') / N' \pm z sqrt(b' + c' - (b' - c')^2 / N') / N'. Source: A. Agresti and Y. Min, "Simple improved confidence
  intervals for comparing matched proportions", Statistics in Medicine 24 (2005).

Both cover the choice of the test images, not the seed.
"""

import statistics
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Paired:
    """The difference of two accuracies on the same images; fractions of 1."""

    images: int
    only_first: int
    """Images that are right for the first network and wrong for the second."""
    only_second: int
    value: float
    """Accuracy of the first minus accuracy of the second."""
    low: float
    high: float
    p: float


def paired(first: NDArray[np.bool_], second: NDArray[np.bool_], confidence: float) -> Paired:
    """Compare two networks by whether each image is right, both [N]; `confidence` in (0, 1)."""
    images, b, c = len(first), int((first & ~second).sum()), int((second & ~first).sum())
    return Paired(images, b, c, (b - c) / images, *interval(b, c, images, confidence), mcnemar(b, c))


def interval(b: int, c: int, images: int, confidence: float) -> tuple[float, float]:
    """The confidence interval of the difference, see the module."""
    z = statistics.NormalDist().inv_cdf((1 + confidence) / 2)
    total, centre = images + 2, (b - c) / (images + 2)
    half = z * (b + c + 1 - (b - c) ** 2 / total) ** 0.5 / total
    return max(-1.0, centre - half), min(1.0, centre + half)


def mcnemar(b: int, c: int) -> float:
    """The p-value of McNemar's exact test, in whole numbers up to the last division."""
    number = b + c
    ways = tail = 1
    for place in range(1, min(b, c) + 1):
        ways = ways * (number - place + 1) // place
        tail += ways
    return min(1.0, 2 * tail / 2**number)
