"""Progress output with a simulated clock: lines without a terminal, the estimate, and their cost."""

import re
import sys
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from alexnet_lab.callbacks.bar import wrapped
from alexnet_lab.callbacks.pace import Meter, Pace, Work, clock, rough
from alexnet_lab.callbacks.progress import Progress
from alexnet_lab.data.spec import Batch

EMPTY = torch.empty(0)
BATCH = 32


class Metrics:
    """Counts reads, each of which would wait for a device."""

    def __init__(self) -> None:
        self.steps = self.reads = 0

    def sums(self) -> torch.Tensor:
        self.reads += 1
        images = self.steps * BATCH
        return torch.tensor([0.5 * images, images // 4, images, images], dtype=torch.float64)

    def latest(self) -> list[float]:
        return self.sums().tolist()


class Run:
    """Calls the hooks of `Progress` like a fit and a test; `seconds` is the simulated clock."""

    def __init__(self, epochs: int, batches: int, test_on: Any = "best", **facts: Any) -> None:
        self.seconds = 5000.0
        self.metrics, self.evaluation = Metrics(), Metrics()
        self.module: Any = SimpleNamespace(train_metrics=self.metrics, eval_metrics=self.evaluation)
        images = {"train": batches * BATCH, "val": 4 * BATCH, "test": 10 * BATCH}
        splits = SimpleNamespace(split=lambda name: SimpleNamespace(rows=range(images[name])))
        defaults = {
            "is_global_zero": True,
            "global_step": 0,
            "current_epoch": 0,
            "max_epochs": epochs,
            "accumulate_grad_batches": 1,
            "num_training_batches": batches,
            "num_val_batches": [4],
            "num_test_batches": [10],
            "limit_val_batches": 1.0,
            "limit_test_batches": 1.0,
            "val_check_batch": batches,
            "check_val_every_n_epoch": 1,
            "callback_metrics": {"val/top1": torch.tensor(0.75), "lr": 1.0},
            "datamodule": SimpleNamespace(batch_size=BATCH, eval_batch_size=BATCH, dataset=splits),
        }
        self.trainer: Any = SimpleNamespace(**(defaults | facts))
        accumulated = self.trainer.accumulate_grad_batches
        self.trainer.estimated_stepping_batches = epochs * batches // accumulated
        self.last = batches  # of an epoch that ends early
        self.progress = Progress(test_on)

    def fit(self, step_seconds: float, val_seconds: float = 0.0, first_seconds: float | None = None) -> None:
        """Train the remaining epochs; a batch takes `step_seconds`, the first one `first_seconds`."""
        trainer, progress = self.trainer, self.progress
        progress.on_train_start(trainer, self.module)
        done = trainer.global_step * trainer.accumulate_grad_batches
        for epoch in range(done // trainer.num_training_batches, trainer.max_epochs):
            trainer.current_epoch = epoch
            first = done % trainer.num_training_batches if epoch == done // trainer.num_training_batches else 0
            if not first:
                progress.on_train_epoch_start(trainer, self.module)
                self.metrics.steps = 0
            for index in range(first, min(self.last, trainer.num_training_batches)):
                progress.on_train_batch_start(trainer, self.module, batch(), index)
                self.seconds += step_seconds if first_seconds is None else first_seconds
                first_seconds = None
                self.metrics.steps += 1
                trainer.global_step += (index + 1) % trainer.accumulate_grad_batches == 0
                progress.on_train_batch_end(trainer, self.module, None, batch(), index)
            progress.on_validation_start(trainer, self.module)
            for index in range(trainer.num_val_batches[0]):
                self.seconds += val_seconds / trainer.num_val_batches[0]
                progress.on_validation_batch_end(trainer, self.module, None, batch(), index)
            progress.on_validation_end(trainer, self.module)
            progress.on_train_epoch_end(trainer, self.module)
            self.seconds += 1000.0  # a checkpoint is written
        progress.on_train_end(trainer, self.module)

    def test(self, batch_seconds: float) -> None:
        self.progress.on_test_start(self.trainer, self.module)
        for index in range(self.trainer.num_test_batches[0]):
            self.seconds += batch_seconds
            self.evaluation.steps += 1
            self.progress.on_test_batch_end(self.trainer, self.module, None, batch(), index)


def batch() -> Batch:
    return Batch(EMPTY, EMPTY, EMPTY, global_size=BATCH)


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """The list of runs; the callback reads the clock of the last one."""
    runs: list[Run] = []
    monkeypatch.setattr("alexnet_lab.callbacks.progress.time.monotonic", lambda: runs[-1].seconds)
    return runs


@pytest.fixture
def without_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def of_epochs(printed: list[str]) -> list[str]:
    return [line for line in printed if line.startswith("epoch ")]


@pytest.mark.usefixtures("without_terminal")
def test_long_epoch_prints_a_line_a_minute(running: list[Run], capsys: pytest.CaptureFixture[str]) -> None:
    running.append(run := Run(epochs=1, batches=7200))  # two hours
    run.fit(step_seconds=1.0, first_seconds=100.0)
    printed = of_epochs(lines(capsys))
    steps = [int(line.split("step ")[1].split("/")[0].replace(",", "")) for line in printed]
    assert max(after - before for before, after in pairwise(steps)) <= 60
    assert 120 <= len(printed) <= 120 + 10 + 1
    assert printed[5].startswith("epoch 1/1  step 301/7,200  32 images/s  1:55:")
    assert printed[5].endswith(" left  loss 0.5000  top1 0.2500")


@pytest.mark.usefixtures("without_terminal")
@pytest.mark.parametrize(("epochs", "batches"), [(1, 10), (1, 11), (2, 5), (3, 33), (1, 200), (30, 1), (4, 1000)])
def test_run_of_at_least_ten_steps_prints_at_least_ten_lines(
    epochs: int, batches: int, running: list[Run], capsys: pytest.CaptureFixture[str]
) -> None:
    running.append(run := Run(epochs, batches))
    run.fit(step_seconds=0.001)
    printed = of_epochs(lines(capsys))
    assert 10 <= len(printed) <= 10 + epochs
    of_an_epoch = [line for line in printed if "val/top1 0.7500" in line]
    assert [line.split("  ")[0] for line in of_an_epoch] == [f"epoch {n}/{epochs}" for n in range(1, epochs + 1)]
    assert all(re.search(r"step [\d,]+/[\d,]+  [\d,]+ images/s", line) for line in printed)


@pytest.mark.usefixtures("without_terminal")
def test_last_step_within_an_epoch_has_one_line(running: list[Run], capsys: pytest.CaptureFixture[str]) -> None:
    running.append(run := Run(epochs=1, batches=100))
    run.trainer.estimated_stepping_batches = 20  # trainer.max_steps
    run.last = 20
    run.fit(step_seconds=1.0)
    assert [line.split("/20  ")[0] for line in of_epochs(lines(capsys))] == [
        f"epoch 1/1  step {step}" for step in range(2, 21, 2)
    ]


@pytest.mark.usefixtures("without_terminal")
def test_metrics_are_fetched_only_for_the_lines_and_twice_for_the_estimate(running: list[Run]) -> None:
    running.append(run := Run(epochs=2, batches=500))
    run.fit(step_seconds=0.01)
    assert run.metrics.reads == 8 + 2  # of ten lines, those at the ends of epochs use Lightning's metrics
    assert run.evaluation.reads == 0


def test_terminal_shows_only_the_bar(
    running: list[Run], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    running.append(run := Run(epochs=2, batches=300))
    run.fit(step_seconds=1.0)
    run.test(batch_seconds=30.0)
    printed = [line for line in re.split(r"[\r\n]+", capsys.readouterr().err) if line.strip(" \x1b[A")]
    kept = [line for line in printed if "|" not in line]
    assert [line.split("  ")[0] for line in kept if not line.startswith("about")] == ["epoch 1/2", "epoch 2/2"]
    assert len([line for line in kept if line.startswith("about")]) == 1
    assert any(line.startswith("epoch 1/2:") and "top1 0.250" in line for line in printed)


def test_narrow_terminal_shows_remaining_time_and_top1_first(
    running: list[Run], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr("alexnet_lab.callbacks.bar.columns", lambda: 40)
    running.append(run := Run(epochs=1, batches=300))
    run.fit(step_seconds=1.0)
    printed = re.split(r"[\r\n]+", capsys.readouterr().err)
    assert any(re.match(r"epoch 1/1 \d+% [\d:]+ left, top1 0.250, ", line) for line in printed)


def test_lines_on_a_terminal_are_wrapped_between_parts() -> None:
    parts = ["epoch 1/2", "step 750/1,500", "train/loss 2.3164", "val/top1 0.1000"]
    assert wrapped(parts, None) == "  ".join(parts)
    assert wrapped(parts, 40) == "epoch 1/2  step 750/1,500\n  train/loss 2.3164  val/top1 0.1000"
    assert wrapped(parts, 10).splitlines() == [parts[0], *(f"  {part}" for part in parts[1:])]


@pytest.mark.usefixtures("without_terminal")
def test_other_ranks_print_nothing(running: list[Run], capsys: pytest.CaptureFixture[str]) -> None:
    running.append(run := Run(epochs=1, batches=100, is_global_zero=False))
    run.fit(step_seconds=10.0)
    run.test(batch_seconds=100.0)
    assert lines(capsys) == []
    assert run.metrics.reads == run.evaluation.reads == 0


@pytest.mark.usefixtures("without_terminal")
def test_long_test_prints_a_line_a_minute(running: list[Run], capsys: pytest.CaptureFixture[str]) -> None:
    running.append(run := Run(epochs=1, batches=1))
    run.test(batch_seconds=32.0)
    assert lines(capsys) == [
        f"test  batch {done}/10  1.0 images/s  {left} left  loss 0.5000  top1 0.2500"
        for done, left in ((2, "4:16"), (4, "3:12"), (6, "2:08"), (8, "1:04"))
    ]


@pytest.mark.usefixtures("without_terminal")
def test_run_continued_in_mid_epoch_prints_ten_lines_for_the_rest(
    running: list[Run], capsys: pytest.CaptureFixture[str]
) -> None:
    running.append(run := Run(epochs=2, batches=100, global_step=150))
    run.metrics.steps = 50
    run.fit(step_seconds=1.0)
    estimate, *printed = sorted(lines(capsys), key=lambda line: not line.startswith("about"))
    assert estimate.startswith("about 50 s for the remaining 50 steps")
    assert len(printed) == 10
    assert printed[0].startswith("epoch 2/2  step 155/200  ")
    assert "val/top1 0.7500" in printed[-1]


@pytest.mark.usefixtures("without_terminal")
@pytest.mark.parametrize("first_seconds", [1.0, 600.0])
def test_estimate_uses_steps_after_the_warm_up_and_includes_validation_and_test(
    first_seconds: float, running: list[Run], capsys: pytest.CaptureFixture[str]
) -> None:
    running.append(run := Run(epochs=4, batches=300))
    run.fit(step_seconds=1.0, first_seconds=first_seconds)
    (estimate,) = [line for line in lines(capsys) if line.startswith("about")]
    # 1,200 steps of 1 s; validations of 4 x 4 batches and a test of 10 at a third of that each; the first step's time.
    minutes = round((1200 + 26 / 3 + first_seconds - 1) / 60)
    assert estimate == f"about {minutes} min for 4 epochs at 32 images/s, with validation and test"


@pytest.mark.usefixtures("without_terminal")
@pytest.mark.parametrize(
    ("facts", "test_on", "words"),
    [
        ({}, "none", "for 2 epochs at 32 images/s, with validation"),
        ({"limit_val_batches": 0}, "last", "for 2 epochs at 32 images/s, with test"),
        ({"limit_val_batches": 0}, "none", "for 2 epochs at 32 images/s"),
        ({"max_epochs": 1}, "none", "for 1 epoch at 32 images/s, with validation"),
    ],
)
def test_estimate_names_what_it_includes(
    facts: dict[str, Any], test_on: str, words: str, running: list[Run], capsys: pytest.CaptureFixture[str]
) -> None:
    running.append(run := Run(facts.get("max_epochs", 2), 100, test_on, **facts))
    run.fit(step_seconds=1.0)
    (estimate,) = [line for line in lines(capsys) if line.startswith("about")]
    assert estimate.endswith(words)


@pytest.mark.usefixtures("without_terminal")
def test_short_run_prints_no_estimate(running: list[Run], capsys: pytest.CaptureFixture[str]) -> None:
    running.append(run := Run(epochs=1, batches=7))
    run.fit(step_seconds=1.0)
    assert not [line for line in lines(capsys) if line.startswith("about")]


@pytest.mark.usefixtures("without_terminal")
def test_accumulated_micro_batches_count_once(running: list[Run], capsys: pytest.CaptureFixture[str]) -> None:
    running.append(run := Run(epochs=1, batches=200, accumulate_grad_batches=2))
    run.fit(step_seconds=1.0)
    printed = lines(capsys)
    assert "about 3 min for 1 epoch at 16 images/s, with validation and test" in printed
    assert of_epochs(printed)[0].startswith("epoch 1/1  step 10/100  16 images/s  3:")


@pytest.mark.usefixtures("without_terminal")
def test_remaining_time_uses_the_measured_validations(running: list[Run], capsys: pytest.CaptureFixture[str]) -> None:
    running.append(run := Run(epochs=3, batches=100))
    run.fit(step_seconds=1.0, val_seconds=40.0)
    first, second, third = (line for line in lines(capsys) if "val/top1" in line)
    # A validation of 4 batches takes 40 s, so the test of 10 takes 100 s.
    assert "  6:20 left  " in first  # 2 x (100 + 40) + 100
    assert "  4:00 left  " in second
    assert "  1:40 left  " in third


@pytest.mark.parametrize(
    ("interval", "epochs", "expected"),
    [(100, 1, 0.01), (25, 1, 0.04), (100, 5, 0.002), (250, None, 0.004), (None, 1, 0.0)],
)
def test_validations_are_counted_by_lightnings_settings(
    interval: int | None, epochs: int | None, expected: float
) -> None:
    run = Run(10, 100, val_check_batch=interval, check_val_every_n_epoch=epochs)
    assert Work.of(run.trainer, tested=False).validations_per_step == pytest.approx(expected)


@pytest.mark.parametrize(("limit", "images"), [(1.0, 320), (0.5, 160), (3, 96), (100, 320), (0, 0)])
def test_limited_test_counts_its_images(limit: float, images: int) -> None:
    assert Work.of(Run(1, 1, limit_test_batches=limit).trainer, tested=True).test_images == images


def test_meter_excludes_time_between_stop_and_start() -> None:
    meter = Meter()
    meter.start(10.0)
    meter.images = 60
    meter.stop(12.0)
    meter.start(100.0)
    assert meter.take(101.0) == Meter(60, 3.0)
    assert meter.take(102.0) == Meter(0, 1.0)
    assert Pace().seconds_left(Work(0, 10, 10, 32, 0, 0.0, 0), 1) is None


@pytest.mark.parametrize(
    ("seconds", "exact", "words"),
    [
        (0.2, "0:00", "about 1 s"),
        (7, "0:07", "about 7 s"),
        (44, "0:44", "about 40 s"),
        (95, "1:35", "about 2 min"),
        (760, "12:40", "about 13 min"),
        (3723, "1:02:03", "about 62 min"),
        (7800, "2:10:00", "about 2 h 10 min"),
        (86_000, "23:53:20", "about 23 h 50 min"),
        (86_399, "23:59:59", "about 1 day"),
        (460_000, "127:46:40", "about 5 days 8 h"),
    ],
)
def test_durations_are_formatted_exactly_and_roughly(seconds: float, exact: str, words: str) -> None:
    assert (clock(seconds), rough(seconds)) == (exact, words)
