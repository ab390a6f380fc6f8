"""`callbacks=early_stopping` ends a run with a whole epoch, says why, and continues exactly."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.loops.progress import _Progress as EpochProgress

from alexnet_lab.callbacks.early_stopping import EarlyStopping
from alexnet_lab.errors import RunFailed, UserError
from alexnet_lab.runs.metric_rows import read_rows
from alexnet_lab.training import train

Settings = Callable[..., dict[str, Any]]
SMALL = (
    *("model=lenet", "data=synthetic", "data.train_size=16", "data.val_size=8", "data.batch_size=4", "logger=none"),
    *("trainer=cpu", "trainer.max_epochs=6", "test_on=none", "callbacks=early_stopping", "callbacks.pictures=null"),
    *("optimizer.lr=0", "optimizer.weight_decay=0"),  # nothing improves
)


def ended(settings: dict[str, Any], folder: Path, checkpoint: Path | None = None) -> dict[str, Any]:
    train(settings, folder, checkpoint, time.time())
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return result


def epochs(folder: Path) -> list[int]:
    return [int(row["epoch"]) for row in read_rows(folder / "metrics.csv") if "train/loss" in row]


@pytest.mark.usefixtures("as_in_a_rank")
def test_run_without_improvement_has_finished_and_says_why(settings: Settings, tmp_path: Path) -> None:
    patience = "callbacks.early_stopping.patience=2"
    result = ended(settings(*SMALL, patience), tmp_path)
    assert epochs(tmp_path) == [0, 1, 2]
    assert result["status"] == "finished"
    assert result["reason"].startswith("early stopping: no improvement of val/top1 in 2 checks; the best is 0.")

    last = tmp_path / "checkpoints" / "last.ckpt"
    assert ended(settings(*SMALL, patience), tmp_path, last)["reason"] == result["reason"]
    assert epochs(tmp_path) == [0, 1, 2], "a run that was killed at its end trains no further epoch"

    ended(settings(*SMALL, "callbacks.early_stopping.patience=4"), tmp_path, last)
    assert epochs(tmp_path) == [0, 1, 2, 3, 4], "the continued run's own patience counts"


@pytest.mark.usefixtures("as_in_a_rank")
def test_run_ends_with_a_whole_epoch(settings: Settings, tmp_path: Path) -> None:
    within = ("trainer.val_check_interval=0.25", "callbacks.early_stopping.patience=1")
    result = ended(settings(*SMALL, *within), tmp_path)
    assert "in 1 checks" in result["reason"]
    state = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert (state["global_step"], epochs(tmp_path)) == (4, [0])


@pytest.mark.usefixtures("as_in_a_rank")
@pytest.mark.parametrize(
    "ends_the_run",
    [
        ("callbacks.early_stopping.patience=1",),
        ("callbacks.early_stopping=null", "scheduler=plateau_2012", "scheduler.patience=1", "scheduler.drops=0"),
    ],
    ids=["early stopping", "schedule"],
)
def test_run_continued_in_the_middle_of_its_last_epoch_trains_all_of_it(
    settings: Settings, tmp_path: Path, ends_the_run: tuple[str, ...]
) -> None:
    run, last = settings(*SMALL, "trainer.val_check_interval=0.25", *ends_the_run), tmp_path / "checkpoints/last.ckpt"
    run["trainer"]["max_steps"] = 3
    ended(run, tmp_path)
    state = torch.load(last, weights_only=True)
    early = [one for name, one in state["callbacks"].items() if name.startswith("EarlyStopping")]
    assert (state["global_step"], early[0]["wait_count"] if early else state["lr_schedulers"][0]["finished"]) == (3, 1)
    run["trainer"]["max_steps"] = -1
    assert "reason" in ended(run, tmp_path, last)
    assert (torch.load(last, weights_only=True)["global_step"], epochs(tmp_path)[-1]) == (4, 0)


@pytest.mark.usefixtures("as_in_a_rank")
def test_monitored_metric_is_checked_before_training(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"^callbacks\.early_stopping\.monitor=val/acc: there is no such metric; choose"
    ):
        ended(settings(*SMALL, "callbacks.early_stopping.monitor=val/acc"), tmp_path)


@pytest.mark.usefixtures("as_in_a_rank")
def test_metric_of_training_is_checked_at_the_end_of_each_epoch(settings: Settings, tmp_path: Path) -> None:
    loss = ("callbacks.early_stopping.monitor=train/loss", "callbacks.early_stopping.mode=min")
    more = (
        "trainer.limit_val_batches=0",
        "callbacks.early_stopping.patience=1",
        "callbacks.early_stopping.min_delta=1",
    )
    assert "of train/loss in 1 checks" in ended(settings(*SMALL, *loss, *more), tmp_path)["reason"]
    assert epochs(tmp_path) == [0, 1]


class Run:
    """The hooks of a training whose validations yield `values`, one per epoch."""

    def __init__(self, callback: EarlyStopping) -> None:
        self.callback, self.module = callback, SimpleNamespace(ended_early=None)
        self.trainer: Any = SimpleNamespace(
            limit_val_batches=1, state=SimpleNamespace(fn="fit"), sanity_checking=False, should_stop=False
        )
        self.trainer.fit_loop = SimpleNamespace(epoch_progress=EpochProgress())  # between two epochs
        callback.setup(self.trainer, self.module, "fit")  # type: ignore[arg-type]

    def epochs(self, values: list[float]) -> int:
        """How many are trained."""
        self.callback.on_train_start(self.trainer, self.module)  # type: ignore[arg-type]
        for number, value in enumerate(values):
            if self.trainer.should_stop:
                return number
            self.trainer.callback_metrics = {"val/top1": torch.tensor(value)}
            self.callback.on_validation_end(self.trainer, self.module)  # type: ignore[arg-type]
            self.callback.on_train_epoch_end(self.trainer, self.module)  # type: ignore[arg-type]
        return len(values)


VALUES = [0.1, 0.3, 0.3, 0.2, 0.35, 0.35, 0.36, 0.34, 0.3, 0.9, 0.9]


def stopping(**changes: Any) -> EarlyStopping:
    return EarlyStopping(**{"monitor": "val/top1", "mode": "max", "patience": 2, "min_delta": 0.0} | changes)


@pytest.mark.parametrize(
    ("changes", "trained"),
    [
        ({}, 4),
        ({"patience": 3}, 11),
        ({"patience": 3, "min_delta": 0.1}, 5),
        ({"patience": 3, "stopping_threshold": 0.35}, 5),
        ({"patience": 1, "mode": "min"}, 2),
    ],
)
def test_run_that_is_continued_after_any_epoch_ends_like_the_whole_one(changes: dict[str, Any], trained: int) -> None:
    assert Run(stopping(**changes)).epochs(VALUES) == trained
    for cut in range(len(VALUES) + 1):
        first, second = stopping(**changes), stopping(**changes)
        done = Run(first).epochs(VALUES[:cut])
        second.load_state_dict(first.state_dict())
        assert done + Run(second).epochs(VALUES[done:]) == trained


def test_state_of_lightnings_early_stopping_is_read() -> None:
    callback = stopping()
    callback.load_state_dict({"wait_count": 1, "best_score": torch.tensor(0.5), "patience": 9, "stopped_epoch": 0})
    assert Run(callback).epochs([0.4, 0.4]) == 1


@pytest.mark.parametrize("changes", [{"patience": 0}, {"min_delta": -0.1}])
def test_impossible_settings_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"^early stopping needs patience >= 1 and min_delta >= 0"):
        stopping(**changes)


def test_metric_that_never_appears_ends_the_run_with_a_line() -> None:
    with pytest.raises(RunFailed, match=r"^early stopping: there is no metric other; there are: val/top1"):
        Run(stopping(monitor="other")).epochs([0.5])
