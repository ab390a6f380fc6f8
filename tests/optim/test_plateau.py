"""The 2012 schedule: with lists of errors, then in runs."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from alexnet_lab.errors import UserError
from alexnet_lab.optim.plateau import Plateau2012, plateau_2012
from alexnet_lab.optim.sgd_2012 import sgd_2012
from alexnet_lab.runs.metric_rows import read_rows
from alexnet_lab.training import train


def schedule(**settings: Any) -> Plateau2012:
    net = nn.Linear(2, 2)
    return plateau_2012(sgd_2012(net.named_parameters(), lr=0.5, convention="source"), 10, 100, **settings)


def rates(scheduler: Plateau2012, errors: list[float], steps: int = 3) -> list[float]:
    """The weights' learning rate in the epoch after each validation; each epoch has `steps` steps."""
    found = []
    for error in errors:
        scheduler.validated(error)
        for _ in range(steps):
            scheduler.optimizer.step()
            scheduler.step()
        found.append(scheduler.optimizer.param_groups[0]["lr"])
    return found


def test_learning_rate_drops_after_three_plateaus_and_the_fourth_ends_the_run() -> None:
    scheduler = schedule(patience=2, min_delta=0.0)
    errors = [0.9, 0.8, 0.8, 0.81, 0.7, 0.75, 0.7, 0.7, 0.7]
    expected = [0.5, 0.5, 0.5, 0.05, 0.05, 0.05, 0.005, 0.005, 0.0005]
    assert rates(scheduler, errors) == pytest.approx(expected)
    assert not scheduler.finished
    scheduler.validated(0.6)
    scheduler.validated(0.6)
    assert not scheduler.finished
    scheduler.validated(0.6)
    assert scheduler.finished
    assert scheduler.optimizer.param_groups[0]["lr"] == pytest.approx(0.0005)
    assert scheduler.optimizer.param_groups[1]["lr"] == 1.0  # biases of the source


def test_gain_up_to_min_delta_is_not_an_improvement() -> None:
    assert rates(schedule(patience=1, min_delta=0.01), [0.9, 0.895, 0.88]) == pytest.approx([0.5, 0.05, 0.05])


def test_state_restores_count_and_drops() -> None:
    errors = [0.9, 0.9, 0.9, 0.9, 0.85, 0.85]
    whole, cut, rest = (schedule(patience=2, drops=1) for _ in range(3))
    rates(whole, errors)
    rates(cut, errors[:4])
    rest.optimizer.load_state_dict(cut.optimizer.state_dict())
    rest.load_state_dict(cut.state_dict())
    rates(rest, errors[4:])
    assert rest.state_dict() == whole.state_dict()
    assert rest.optimizer.param_groups[0]["lr"] == whole.optimizer.param_groups[0]["lr"]


@pytest.mark.parametrize("wrong", [{"patience": 0}, {"min_delta": -0.1}, {"factor": 1.0}, {"drops": -1}])
def test_wrong_value_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="patience >= 1"):
        schedule(**wrong)


# SLOW learns nothing, so every validation after the first is on the plateau.
STANDING = (
    "model=lenet", "data=synthetic", "data.train_size=64", "data.batch_size=32", "logger=none", "trainer=cpu",
    "trainer.log_every_n_steps=1", "optimizer=sgd_2012", "optimizer.convention=source", "optimizer.momentum=0.0",
    "scheduler=plateau_2012", "scheduler.patience=2", "test_on=none",
)  # fmt: skip
SLOW = "optimizer.lr=1e-30"


def rate_of_each_step(folder: Path) -> list[float]:
    return [row["lr"] for row in read_rows(folder / "metrics.csv") if "lr" in row]


@pytest.mark.usefixtures("as_in_a_rank")
def test_run_without_improvement_drops_the_learning_rate_three_times_and_ends(
    settings: Callable[..., Any], tmp_path: Path
) -> None:
    train(settings(*STANDING, SLOW, "trainer.max_epochs=20"), tmp_path, None, time.time())
    # Nine validations: the first is the lowest, then four plateaus of two; two steps each.
    assert rate_of_each_step(tmp_path) == pytest.approx(
        [1e-30] * 6 + [1e-31] * 4 + [1e-32] * 4 + [1e-33] * 4, rel=1e-6, abs=0
    )
    state = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["lr_schedulers"][0]["finished"]


@pytest.mark.usefixtures("as_in_a_rank")
def test_max_epochs_ends_it_earlier(settings: Callable[..., Any], tmp_path: Path) -> None:
    train(settings(*STANDING, SLOW, "trainer.max_epochs=4"), tmp_path, None, time.time())
    assert rate_of_each_step(tmp_path) == pytest.approx([1e-30] * 6 + [1e-31] * 2, rel=1e-6, abs=0)


@pytest.mark.usefixtures("as_in_a_rank")
def test_end_of_the_schedule_in_mid_epoch_waits_for_the_end_of_the_epoch(
    settings: Callable[..., Any], tmp_path: Path
) -> None:
    often = ("trainer.val_check_interval=0.25", "data.train_size=128", "scheduler.patience=1", "scheduler.drops=1")
    train(settings(*STANDING, SLOW, *often, "trainer.max_epochs=20"), tmp_path, None, time.time())
    assert rate_of_each_step(tmp_path) == pytest.approx([1e-30] * 2 + [1e-31] * 2, rel=1e-6, abs=0)


@pytest.mark.usefixtures("as_in_a_rank")
def test_run_ended_by_the_schedule_ends_at_once_with_more_epochs(settings: Callable[..., Any], tmp_path: Path) -> None:
    short = (*STANDING, SLOW, "scheduler.patience=1", "scheduler.drops=0")
    train(settings(*short, "trainer.max_epochs=5"), tmp_path, None, time.time())
    last = tmp_path / "checkpoints" / "last.ckpt"
    rows = read_rows(tmp_path / "metrics.csv")
    train(settings(*short, "trainer.max_epochs=9"), tmp_path, last, time.time())
    assert read_rows(tmp_path / "metrics.csv") == rows
    assert torch.load(last, weights_only=True)["global_step"] == 4


@pytest.mark.usefixtures("as_in_a_rank")
def test_schedule_without_validation_is_refused(settings: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"this scheduler needs validation, which trainer\.limit_val_batches=0"):
        train(settings(*STANDING, "trainer.limit_val_batches=0"), tmp_path, None, time.time())


def content(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return state


LEARNING = (
    *STANDING, "model.image_size=28", "optimizer.lr=0.1", "optimizer.momentum=0.9", "data.train_size=96",
    "scheduler.patience=1", "scheduler.min_delta=0.02", "checkpoints.every_minutes=0.0001",
)  # fmt: skip


@pytest.mark.usefixtures("as_in_a_rank")
@pytest.mark.parametrize("epochs", [2, 3, 4])
def test_run_continued_after_any_epoch_equals_the_uninterrupted_run_bit_for_bit(
    epochs: int, settings: Callable[..., Any], tmp_path: Path
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    train(settings(*LEARNING, "trainer.max_epochs=6"), whole, None, time.time())
    train(settings(*LEARNING, f"trainer.max_epochs={epochs}"), cut, None, time.time())
    # The epoch's checkpoint already contains the effect of its validation on the schedule.
    saved = content(cut)["optimizer_states"][0]["param_groups"][0]["lr"]
    assert saved == pytest.approx(rate_of_each_step(whole)[3 * epochs])
    train(settings(*LEARNING, "trainer.max_epochs=6"), cut, cut / "checkpoints" / "last.ckpt", time.time())
    ours, theirs = content(cut), content(whole)
    assert ours["lr_schedulers"] == theirs["lr_schedulers"]
    assert ours["lr_schedulers"][0]["dropped"] >= 1
    assert all(torch.equal(value, theirs["state_dict"][name]) for name, value in ours["state_dict"].items())
    velocities = [one["optimizer_states"][0]["state"] for one in (ours, theirs)]
    assert all(torch.equal(velocities[0][k]["velocity"], velocities[1][k]["velocity"]) for k in velocities[1])
    assert (cut / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()


def test_ranks_drop_the_learning_rate_and_end_together(script: Any, tmp_path: Path) -> None:
    choices = ("trainer=ddp_cpu", "trainer.max_epochs=20", "scheduler.drops=1", f"hydra.run.dir={tmp_path / 'two'}")
    ended = script.run(*STANDING, SLOW, *choices)
    assert ended.returncode == 0, ended.stderr
    assert rate_of_each_step(tmp_path / "two") == pytest.approx([1e-30] * 6 + [1e-31] * 4, rel=1e-6, abs=0)
    assert content(tmp_path / "two")["lr_schedulers"][0]["finished"]
