"""Each schedule compared with the learning rates of its definition."""

import math
from collections.abc import Callable

import pytest
import torch
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from alexnet_lab.errors import UserError
from alexnet_lab.optim.schedules import constant, cosine, one_cycle, step

RATE = 0.5


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)


def rates(schedule: Callable[..., LRScheduler], steps: int, steps_per_epoch: int = 1, **settings: float) -> list[float]:
    """The learning rate of each of the run's `steps`."""
    sgd = optimizer()
    return rates_of(schedule(sgd, steps_per_epoch, steps, **settings), sgd, steps)


def rates_of(scheduler: LRScheduler, sgd: torch.optim.Optimizer, steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        found.append(sgd.param_groups[0]["lr"])
        sgd.step()
        scheduler.step()
    return found


def test_constant_keeps_the_learning_rate() -> None:
    assert rates(constant, 5) == [0.5] * 5


def test_step_multiplies_by_the_factor_at_the_given_epochs() -> None:
    expected = [0.5] * 6 + [0.05] * 6 + [0.005] * 2
    assert rates(step, 14, steps_per_epoch=3, epochs=2, factor=0.1) == pytest.approx(expected)


def test_cosine_falls_from_lr_to_zero() -> None:
    expected = [0.5, 0.25 * (1 + math.sqrt(0.5)), 0.25, 0.25 * (1 - math.sqrt(0.5))]
    assert rates(cosine, 4) == pytest.approx(expected)
    sgd = optimizer()
    rates_of(cosine(sgd, 1, 4), sgd, 4)
    assert sgd.param_groups[0]["lr"] == pytest.approx(0)


def test_cosine_rises_linearly_to_lr_during_the_warm_up() -> None:
    expected = [0.125, 0.25, 0.375, 0.5, 0.25]
    assert rates(cosine, 5, steps_per_epoch=2, warmup_epochs=1.5) == pytest.approx(expected)


def test_one_cycle_starts_peaks_and_ends_as_configured() -> None:
    found = rates(one_cycle, 10, rise=0.3, start_factor=0.04, end_factor=4e-6)
    # Up by half a cosine over steps 0 to 2, down over 2 to 9.
    assert found[:3] == pytest.approx([0.02, 0.26, 0.5])
    assert found[-1] == pytest.approx(2e-6)
    assert max(found) == RATE
    assert sorted(found[2:], reverse=True) == found[2:]


@pytest.mark.parametrize("steps", [1, 2, 7, 40])
def test_one_cycle_equals_torchs(steps: int) -> None:
    sgd = optimizer()
    twin = OneCycleLR(
        sgd, RATE, steps, pct_start=0.3, div_factor=25, final_div_factor=0.04 / 4e-6, cycle_momentum=False
    )
    assert rates(one_cycle, steps) == pytest.approx(rates_of(twin, sgd, steps))


@pytest.mark.parametrize("schedule", [constant, step, cosine, one_cycle])
def test_state_restores_the_position_and_the_run_may_be_longer(schedule: Callable[..., LRScheduler]) -> None:
    sgd = optimizer()
    first = schedule(sgd, 5, 10)
    rates_of(first, sgd, 10)

    longer = optimizer()
    continued = schedule(longer, 5, 20)
    longer.load_state_dict(sgd.state_dict())
    continued.load_state_dict(first.state_dict())
    assert continued.last_epoch == 10
    assert rates_of(continued, longer, 10)[1:] == pytest.approx(rates(schedule, 20, steps_per_epoch=5)[11:])


@pytest.mark.parametrize(
    ("schedule", "settings", "message"),
    [
        (step, {"epochs": 0}, "epochs must be at least 1"),
        (step, {"factor": 0.0}, "factor above 0"),
        (cosine, {"warmup_epochs": -1.0}, "not negative"),
        (cosine, {"warmup_epochs": 10.0}, "must be shorter than the run"),
        (one_cycle, {"rise": 0.0}, "0 < rise < 1"),
        (one_cycle, {"rise": 1.0}, "0 < rise < 1"),
        (one_cycle, {"start_factor": 2.0}, "start_factor <= 1"),
        (one_cycle, {"end_factor": 0.0}, "0 < end_factor"),
    ],
)
def test_wrong_value_is_refused(schedule: Callable[..., LRScheduler], settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        schedule(optimizer(), 1, 10, **settings)
