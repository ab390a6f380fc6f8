"""The paired interval and McNemar's test compared with published software and simulated data."""

import random

import numpy as np
import pytest
from scipy.stats import binomtest

from alexnet_lab.report.paired import interval, mcnemar, paired

SIMULATIONS = 2000


def test_interval_equals_that_of_propcis() -> None:
    # R, PropCIs 0.3-0: diffpropci.mp(b = 40, c = 20, n = 160, conf.level = 0.95), whose difference is c - b.
    assert interval(20, 40, 160, 0.95) == pytest.approx((-0.21601726, -0.03089632), abs=5e-9)
    assert interval(40, 20, 160, 0.95) == pytest.approx((0.03089632, 0.21601726), abs=5e-9)


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (3, 3), (12, 2), (200, 160), (5000, 4700)])
def test_p_is_that_of_the_two_sided_binomial_test(b: int, c: int) -> None:
    expected = binomtest(b, b + c).pvalue if b + c else 1.0
    assert mcnemar(b, c) == mcnemar(c, b) == pytest.approx(expected, rel=1e-9)


def test_networks_that_agree_have_p_1_and_an_interval_around_zero() -> None:
    right = np.array([True, False] * 50)
    found = paired(right, right, 0.95)
    assert (found.value, found.p, found.only_first, found.only_second) == (0, 1, 0, 0)
    assert -0.03 < found.low < 0 < found.high < 0.03


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_paired_interval_covers_the_true_difference_at_its_confidence_level(confidence: float) -> None:
    draw, covered = random.Random(0), 0
    for _ in range(SIMULATIONS):
        cells = draw.choices(("both", "b", "c", "none"), (0.7, 0.1, 0.05, 0.15), k=200)
        low, high = interval(cells.count("b"), cells.count("c"), 200, confidence)
        covered += low <= 0.05 <= high
    error = (confidence * (1 - confidence) / SIMULATIONS) ** 0.5
    assert covered / SIMULATIONS == pytest.approx(confidence, abs=4 * error + 0.01)
