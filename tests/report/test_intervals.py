"""The intervals compared with published examples and simulated data."""

import random
from collections.abc import Callable

import pytest

from alexnet_lab.errors import UserError
from alexnet_lab.report import intervals
from alexnet_lab.report.intervals import difference, wilson

SIMULATIONS = 2000


def test_welch_interval_by_hand() -> None:
    # Means 3 and 8, variances 1 and 4 over 3 values: error sqrt(5/3), freedom (5/3)^2 / ((1/9 + 16/9) / 2) = 50/17.
    found = difference([2.0, 3.0, 4.0], [6.0, 8.0, 10.0], 0.95)
    half = 3.218759 * (5 / 3) ** 0.5  # t for 0.95 and 2.94 degrees of freedom
    assert found.method == "Welch"
    assert (found.value, found.low, found.high) == pytest.approx((-5, -5 - half, -5 + half), abs=1e-3)


def test_interval_of_a_single_run_uses_the_standard_deviation_of_the_other_group() -> None:
    found = difference([5.0], [1.0, 2.0, 3.0], 0.95)
    half = 4.302653 * (1 + 1 / 3) ** 0.5
    assert found.method == "Student"
    assert (found.value, found.low, found.high) == pytest.approx((3, 3 - half, 3 + half), abs=1e-5)


def test_newcombe_interval_matches_the_published_example() -> None:
    # Newcombe 1998, table II, example (a): 56 of 70 less 48 of 80, method 10.
    found = difference([56 / 70], [48 / 80], 0.95, (70, 80))
    assert found.method == "images"
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


def test_wilson_interval_at_accuracy_1_is_not_empty() -> None:
    low, high = wilson(1.0, 10, 0.95)
    assert (low, high) == pytest.approx((10 / (10 + 1.96**2), 1.0), abs=1e-4)


def test_single_runs_without_a_number_of_test_images_have_no_interval() -> None:
    found = difference([0.9], [0.8], 0.95, (None, 10_000))
    assert found.value == pytest.approx(0.1)
    assert (found.low, found.high, found.method) == (None, None, None)


def seeds_of_both(random_: random.Random) -> tuple[list[float], list[float], float]:
    ours = [random_.gauss(0.88, 0.004) for _ in range(5)]
    return ours, [random_.gauss(0.80, 0.016) for _ in range(4)], 0.08


def seeds_of_one(random_: random.Random) -> tuple[list[float], list[float], float]:
    return [random_.gauss(0.88, 0.01)], [random_.gauss(0.80, 0.01) for _ in range(5)], 0.08


def images_of_single_runs(random_: random.Random) -> tuple[list[float], list[float], float]:
    ours = sum(random_.random() < 0.9 for _ in range(200)) / 200
    return [ours], [sum(random_.random() < 0.85 for _ in range(200)) / 200], 0.05


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize("draw", [seeds_of_both, seeds_of_one, images_of_single_runs])
def test_interval_covers_the_true_difference_at_its_confidence_level(
    draw: Callable[[random.Random], tuple[list[float], list[float], float]], confidence: float
) -> None:
    random_ = random.Random(0)
    covered = 0
    for _ in range(SIMULATIONS):
        ours, theirs, truth = draw(random_)
        found = difference(ours, theirs, confidence, (200, 200))
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= truth <= found.high
    # Four standard errors of the simulation, and 0.01 for the approximations.
    error = (confidence * (1 - confidence) / SIMULATIONS) ** 0.5
    assert covered / SIMULATIONS == pytest.approx(confidence, abs=4 * error + 0.01)


def test_missing_scipy_is_reported_with_the_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs the package scipy: pip install -e '.\[compare\]'"):
        difference([1.0, 2.0], [3.0], 0.95)


def test_equal_seeds_have_an_interval_of_zero_width() -> None:
    found = difference([0.5, 0.5], [0.25, 0.25], 0.95)
    assert (found.low, found.value, found.high) == (0.25, 0.25, 0.25)
