"""The saved weights are those that were evaluated, and a stopped run continues with all of its weights.

Whole runs in this process: two epochs of four steps, the last of four samples, and a validation of three batches.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import callbacks_for_tests  # noqa: F401 - the configurations name it
import pytest
import torch
from hydra import compose, initialize_config_dir
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    BatchSizeFinder,
    EMAWeightAveraging,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelPruning,
    StochasticWeightAveraging,
    Timer,
    WeightAveraging,
)
from omegaconf import OmegaConf
from torch import Tensor

from alexnet_lab.callbacks.foreign import check_callbacks
from alexnet_lab.commands.entry import register_resolvers
from alexnet_lab.commands.evaluate import evaluate
from alexnet_lab.errors import RunInterrupted, UserError
from alexnet_lab.runs.metric_rows import read_rows
from alexnet_lab.training import train

CONF = str(Path(__file__).parents[2] / "conf")
TINY = (
    "model=lenet",
    "model.dropout=0.3",
    "data=synthetic",
    "data.channels=1",
    "data.stored_size=28",
    "data.train_size=100",
    "data.batch_size=32",
    "data.val_size=70",
    "data.eval_batch_size=32",
    "data.test_size=40",
    "optimizer.lr=0.05",
    "logger=none",
    "trainer=cpu",
    "trainer.max_epochs=2",
    "trainer.log_every_n_steps=1",
    "checkpoints.every_minutes=1e-9",  # after every step
)
EMA = ("callbacks=ema", "callbacks.ema.decay=0.7")
QUIET = ("callbacks.pictures=null", "callbacks.progress=null")
OF_THE_SESSION = ("config", "Stopwatch", "Crash", "AskToStop", "TimeIsUp")


class Runs:
    """Runs in one folder, by name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self, name: str, *overrides: str) -> Path:
        return self._run(name, overrides, None)

    def resume(self, name: str, *overrides: str) -> Path:
        return self._run(name, overrides, self.folder / name / "checkpoints" / "last.ckpt")

    def _run(self, name: str, overrides: tuple[str, ...], checkpoint: Path | None) -> Path:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        (folder / "result.json").unlink(missing_ok=True)
        register_resolvers()
        with initialize_config_dir(CONF, version_base="1.3"):
            config = compose("train", ["run=test", *TINY, *overrides, *QUIET])
        config.folder = str(folder)
        settings: Any = OmegaConf.to_container(config, resolve=True)
        train(settings, folder, checkpoint, 0.0)
        return folder

    def until(self, ended: type[BaseException], name: str, *overrides: str, resume: bool = False) -> str:
        """The message of the exception that ends the run."""
        with pytest.raises(ended) as caught:
            (self.resume if resume else self.start)(name, *overrides)
        return str(caught.value)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """Undo global changes made by runs in this process."""
    environment, threads = dict(os.environ), torch.get_num_threads()
    torch.set_num_threads(1)
    yield Runs(tmp_path_factory.mktemp("weights"))
    torch.set_num_threads(threads)
    os.environ.clear()
    os.environ.update(environment)


@pytest.fixture(scope="module")
def averaged(runs: Runs) -> Path:
    """An uninterrupted run with averaged weights."""
    return runs.start("averaged", *EMA)


@pytest.fixture(scope="module")
def plain(runs: Runs) -> Path:
    """An uninterrupted run."""
    return runs.start("plain")


def at(kind: str, step: int, hook: str) -> str:
    return f"+callbacks.at={{_target_: callbacks_for_tests.{kind}, step: {step}, hook: {hook}}}"


def load(folder: Path, name: str = "last") -> dict[str, Any]:
    content: dict[str, Any] = torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
    return content


def result(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return content


def recorded(folder: Path, split: str) -> dict[str, float]:
    """The first metrics of the split in `metrics.csv`."""
    row = next(row for row in read_rows(folder / "metrics.csv") if f"{split}/loss" in row)
    return {name: value for name, value in row.items() if name.startswith(split)}


def measured(folder: Path, name: str, split: str) -> dict[str, float]:
    with initialize_config_dir(CONF, version_base="1.3"):
        checkpoint = folder / "checkpoints" / f"{name}.ckpt"
        return evaluate(compose("evaluate", [f"checkpoint={checkpoint}", f"split={split}", "trainer=cpu"]))


def differences(ours: Any, theirs: Any, path: str = "") -> list[str]:
    """The differences of two checkpoints, except session data and lightning's count of started batches."""
    if any(name in path for name in OF_THE_SESSION) or "val_loop.batch_progress/total" in path:
        return []
    if isinstance(ours, dict) and isinstance(theirs, dict):
        keys = ours.keys() | theirs.keys()
        return [found for key in keys for found in differences(ours.get(key), theirs.get(key), f"{path}/{key}")]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = enumerate(zip(ours, theirs, strict=True))
        return [found for index, pair in pairs for found in differences(*pair, f"{path}/{index}")]
    same = torch.equal(ours, theirs) if isinstance(ours, Tensor) and isinstance(theirs, Tensor) else ours == theirs
    return [] if same else [path]


def assert_same_end(folder: Path, other: Path) -> None:
    """Compare bit for bit: weights, optimizer, schedule, progress and every recorded metric."""
    for name in ("last", "best"):
        assert differences(load(folder, name), load(other, name)) == []
    assert (folder / "metrics.csv").read_text() == (other / "metrics.csv").read_text()
    for key in ("status", "final", "best", "best_epoch"):
        assert result(folder)[key] == result(other)[key]


def test_best_and_last_contain_the_averaged_weights_that_were_validated_and_tested(averaged: Path, runs: Runs) -> None:
    assert result(averaged)["best_epoch"] == 0
    assert measured(averaged, "best", "val") == recorded(averaged, "val")
    assert measured(averaged, "best", "test") == recorded(averaged, "test")
    last = runs.start("averaged-last", *EMA, "test_on=last")
    assert measured(last, "last", "test") == recorded(last, "test")
    content = load(last)
    assert differences(content["state_dict"], content["current_model_state"]) != []


@pytest.mark.parametrize(
    ("before", "after"),
    [("on_validation_start", "on_validation_end"), ("on_validation_batch_start", "on_validation_batch_end")],
)
def test_best_contains_the_validated_weights_for_any_callback_that_replaces_weights(
    before: str, after: str, runs: Runs, plain: Path
) -> None:
    exchange = f"+callbacks.own={{_target_: callbacks_for_tests.Exchange, before: {before}, after: {after}}}"
    folder = runs.start(before, exchange)
    assert measured(folder, "best", "val") == recorded(folder, "val") != recorded(plain, "val")
    assert measured(folder, "best", "test") == recorded(folder, "test")
    assert differences(load(folder)["state_dict"], load(plain)["state_dict"]) == []


@pytest.mark.parametrize(
    ("kind", "step", "hook", "saved"),
    [
        ("Crash", 6, "on_train_batch_start", 6),
        ("Crash", 4, "on_validation_batch_end", 3),
        ("AskToStop", 4, "on_validation_batch_end", 4),
    ],
)
def test_continued_run_has_the_same_averaged_and_trained_weights_as_an_uninterrupted_run(
    kind: str, step: int, hook: str, saved: int, averaged: Path, runs: Runs
) -> None:
    name = f"{kind}-{hook}"
    runs.until(RuntimeError if kind == "Crash" else RunInterrupted, name, *EMA, at(kind, step, hook))
    assert load(runs.folder / name)["global_step"] == saved
    assert_same_end(runs.resume(name, *EMA), averaged)


def test_run_that_was_killed_before_its_test_tests_the_averaged_weights(averaged: Path, runs: Runs) -> None:
    runs.until(RuntimeError, "untested", *EMA, at("Crash", 8, "on_train_end"), "test_on=last")
    folder = runs.resume("untested", *EMA, "test_on=last")
    assert measured(folder, "last", "test") == recorded(folder, "test")


def test_run_continued_without_averaging_continues_from_the_trained_weights(plain: Path, runs: Runs) -> None:
    runs.until(RuntimeError, "no-more", *EMA, at("Crash", 5, "on_train_batch_start"))
    folder = runs.resume("no-more")
    assert differences(load(folder)["state_dict"], load(plain)["state_dict"]) == []


def test_true_precision_continues_bit_for_bit(runs: Runs) -> None:
    half = ("trainer.precision=bf16-true", *EMA)
    whole = runs.start("half", *half)
    runs.until(RuntimeError, "half-continued", *half, at("Crash", 6, "on_train_batch_start"))
    assert_same_end(runs.resume("half-continued", *half), whole)


@pytest.mark.parametrize(("hook", "steps"), [("on_train_batch_start", (4, 5)), ("on_validation_batch_end", (4, 4))])
def test_run_stopped_twice_by_max_time_equals_the_uninterrupted_run(
    hook: str, steps: tuple[int, int], plain: Path, runs: Runs
) -> None:
    """A start whose time is already up does one step, or the validation in which an earlier start was stopped."""
    name, limit = f"max-time-{hook}", "trainer.max_time=00:00:30:00"
    for start, saved in enumerate(steps):
        reason = runs.until(RunInterrupted, name, limit, at("TimeIsUp", 3, hook), resume=start > 0)
        found = result(runs.folder / name)
        assert (found["status"], found["reason"], found["error"]) == ("interrupted", reason, None)
        assert reason == "max_time"
        assert "test/top1" not in found["final"]
        assert load(runs.folder / name)["global_step"] == saved
    assert_same_end(runs.resume(name, limit), plain)


def test_max_time_reached_after_the_last_step_still_allows_the_test(plain: Path, runs: Runs) -> None:
    assert_same_end(runs.start("in-time", at("TimeIsUp", 8, "on_train_epoch_end")), plain)


def test_max_steps_run_killed_between_epochs_equals_the_uninterrupted_run(runs: Runs) -> None:
    steps = "trainer.max_steps=7"
    whole = runs.start("steps", steps)
    runs.until(RuntimeError, "steps-killed", steps, at("Crash", 4, "on_train_epoch_start"))
    assert_same_end(runs.resume("steps-killed", steps), whole)


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (lambda: GradientAccumulationScheduler({1: 2, 3: 1}), "a run has one global batch, data.batch_size"),
        (lambda: StochasticWeightAveraging(0.1), "use callbacks=ema, or lightning.pytorch.callbacks.WeightAveraging"),
        (lambda: ModelPruning("l1_unstructured"), "its checkpoints do not fit the network"),
        (BatchSizeFinder, "without recording it"),
        (LearningRateFinder, "no attribute `lr`; tune=lr runs a range test and suggests optimizer.lr"),
        (BackboneFinetuning, "no attribute `backbone`"),
    ],
)
def test_unsuitable_callback_is_refused_in_one_line(callback: Callable[[], Any], message: str) -> None:
    with pytest.raises(UserError, match=r"^callbacks\.mine: [A-Za-z]+ cannot be used: .*" + message + ".*$"):
        check_callbacks({"mine": callback()}, whole_network=True)


def test_validating_an_average_before_its_first_update_is_a_warning(
    runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    runs.start("late", *EMA, "callbacks.ema.update_starting_at_step=6")
    assert [text for text in caplog.messages if "average" in text] == [
        "validated the initial weights, since the average of the weights has not been updated yet"
    ]


def test_run_continued_from_before_the_best_epoch_reports_the_tested_weights(
    plain: Path, runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    folder = shutil.copytree(plain, runs.folder / "older")
    best, last = (folder / "checkpoints" / name for name in ("best.ckpt", "last.ckpt"))
    content = torch.load(best, weights_only=True) | {"epoch": 7}  # as if the eighth epoch had been the best
    torch.save(content, best)
    runs.resume("older", "trainer.max_epochs=2")
    assert sorted(path.name for path in last.parent.iterdir()) == ["best-epoch-8.ckpt", "last.ckpt"]
    line = "testing the last weights (epoch 1 was the best, but its weights have been replaced)"
    assert line in caplog.messages


def test_callback_with_harmful_settings_is_refused() -> None:
    with pytest.raises(UserError, match=r"^callbacks\.mine: a Timer with a duration .*; use trainer\.max_time$"):
        check_callbacks({"mine": Timer(duration="00:00:00:01")}, whole_network=True)
    check_callbacks({"mine": Timer()}, whole_network=True)
    with pytest.raises(UserError, match=r"^callbacks\.mine\.update_every_n_steps=0 never updates the average"):
        check_callbacks({"mine": EMAWeightAveraging(update_every_n_steps=0)}, whole_network=True)
    check_callbacks(
        {"mine": EMAWeightAveraging(update_every_n_steps=0, update_starting_at_epoch=1)}, whole_network=True
    )


def test_only_one_callback_may_average_and_only_with_whole_networks() -> None:
    with pytest.raises(UserError, match=r"^callbacks\.a and callbacks\.b both average the weights: choose one$"):
        check_callbacks({"a": WeightAveraging(), "b": EMAWeightAveraging()}, whole_network=True)
    with pytest.raises(UserError, match=r"^callbacks\.a: averaging needs the whole network .* trainer=ddp$"):
        check_callbacks({"a": WeightAveraging()}, whole_network=False)
    check_callbacks({"a": WeightAveraging()}, whole_network=True)
