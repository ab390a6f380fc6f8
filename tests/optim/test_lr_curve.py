"""The learning rate that a range test suggests, and its end, on made-up curves."""

import math

import numpy as np
import pytest

from alexnet_lab.optim.lr_curve import Divergence, smoothed, suggestion

RATES = np.logspace(-6, 1, 351).tolist()
CHANCE = math.log(10)


def test_average_that_is_four_times_the_lowest_one_has_diverged() -> None:
    falling = Divergence()
    assert not any(falling.add(loss) for loss in (2.0, 1.5, 1.0, 1.2, 3.9))
    assert [falling.add(8.0) for _ in range(9)].index(True) == 4


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_loss_that_is_not_finite_has_diverged(loss: float) -> None:
    assert Divergence().add(loss)


def test_smoothed_loss_has_no_lag() -> None:
    rising = np.log10(RATES)
    inner = slice(30, -30)
    assert smoothed(RATES, rising.tolist())[inner] == pytest.approx(rising[inner])


def curve(
    *, fall_at: float | None, rise_at: float | None, start: float = CHANCE + 0.2, low: float = 0.8
) -> list[float]:
    """A noisy loss that falls to chance at 3e-4, to `low` around `fall_at`, and rises at `rise_at`."""
    noise = np.random.default_rng(0).normal(0, 0.02, len(RATES))
    rates = np.array(RATES)

    def step(at: float) -> np.ndarray:
        return 1 / (1 + (at / rates) ** 3)

    losses = CHANCE + 0.2 - 0.2 * step(3e-4)
    if fall_at:
        losses = losses - (CHANCE - low) * step(fall_at)
    found: list[float] = (losses + np.where(rates > rise_at, 1.0 + rates, 0) + noise).tolist()
    return found


def test_suggestion_is_where_the_loss_has_almost_fallen() -> None:
    found = suggestion(RATES, curve(fall_at=0.01, rise_at=0.3), CHANCE)
    assert found is not None
    assert 0.01 < found.rate < 0.03
    assert found.has_learned


def test_fall_to_the_loss_of_guessing_gives_no_small_learning_rate() -> None:
    found = suggestion(RATES, curve(fall_at=None, rise_at=0.6), CHANCE)
    assert found is not None
    assert 0.35 < found.rate < 0.7
    assert not found.has_learned


def test_suggestion_is_between_the_ends_of_the_falls_before_a_passing_rise_and_after_it() -> None:
    losses = curve(fall_at=0.01, rise_at=0.3)
    bump = [loss + (0.8 if 0.008 < rate < 0.012 else 0) for rate, loss in zip(RATES, losses, strict=True)]
    whole, found = suggestion(RATES, losses, CHANCE), suggestion(RATES, bump, CHANCE)
    assert whole is not None
    assert found is not None
    assert 0.006 < found.rate < 0.9 * whole.rate


def test_loss_that_rises_before_it_learns_gives_that_learning_rate() -> None:
    losses = curve(fall_at=None, rise_at=0.6)
    late = [2.2 if rate > 5 else loss for rate, loss in zip(RATES, losses, strict=True)]
    found = suggestion(RATES, late, CHANCE)
    assert found is not None
    assert 0.35 < found.rate < 0.7
    assert not found.has_learned


def test_single_huge_loss_at_the_end_does_not_change_the_suggestion() -> None:
    losses = curve(fall_at=0.01, rise_at=0.3)[:280]
    huge, without = suggestion(RATES[:281], [*losses, 1e12], CHANCE), suggestion(RATES[:280], losses, CHANCE)
    assert huge is not None
    assert without is not None
    assert huge.rate == pytest.approx(without.rate, rel=0.1)


@pytest.mark.parametrize("losses", [[2.3] * 351, [2.3], []])
def test_loss_that_never_falls_gives_no_suggestion(losses: list[float]) -> None:
    assert suggestion(RATES[: len(losses)], losses, CHANCE) is None


def test_network_that_has_already_learned_is_measured_from_its_own_loss() -> None:
    losses = curve(fall_at=0.01, rise_at=0.3, low=0.2)
    trained = np.minimum(losses, 0.8 + np.random.default_rng(1).normal(0, 0.02, len(RATES))).tolist()
    found = suggestion(RATES, trained, CHANCE)
    assert found is not None
    assert 0.01 < found.rate < 0.06
