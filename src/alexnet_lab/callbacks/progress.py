"""Shows progress on standard error: a bar on a terminal, lines elsewhere, and an estimate of the run's time."""

import sys
import time
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import lightning.pytorch as pl
from tqdm import tqdm

from alexnet_lab.callbacks.bar import Bar, columns, wrapped
from alexnet_lab.callbacks.pace import Meter, Pace, Work, clock, rough, speed
from alexnet_lab.data.spec import Batch
from alexnet_lab.metrics import ClassificationMetrics

LINE_SECONDS = 60.0
WARM_UP_STEPS = 3
"""Steps that are left out of estimates: threads start, algorithms are chosen, networks are compiled."""
ESTIMATE_STEPS = 5
ESTIMATE_SECONDS = 2.0
"""The estimate uses at least this many steps, and at least this much time."""


class Counts(NamedTuple):
    """Sums over the images of an epoch or an evaluation so far, on this rank."""

    loss: float = 0.0
    top1: float = 0.0
    images: float = 0.0

    @classmethod
    def of(cls, metrics: ClassificationMetrics) -> "Counts":
        """Fetch the sums from the device, which waits for all steps."""
        loss, top1, _, images = metrics.sums().tolist()
        return cls(loss, top1, images)

    def since(self, before: "Counts") -> list[str]:
        """Mean loss and top-1 of the images since `before`; empty if there were none."""
        images = self.images - before.images
        means = {"loss": self.loss - before.loss, "top1": self.top1 - before.top1}
        return [f"{name} {total / images:.4f}" for name, total in means.items()] if images else []


class Progress(pl.Callback):
    """Shows how far rank 0 is in a fit or a test.

    - On a terminal: a bar with images per second, time left and top-1, drawn at most five times a second.
    - Elsewhere: a line each minute, and in a fit one at each tenth of its steps, with the means since the line before.
    - Once, after the first steps: how long the run will take, with its validations and its test.
    - After each epoch: a line with its metrics.

    Metrics are fetched from a GPU once for each of these lines; the bar shows those of the last logged step.
    `test_on`: the setting of that name; `none` where no test follows the fit.
    """

    def __init__(self, test_on: Literal["best", "last", "none"] = "none") -> None:
        self._tested = test_on != "none"
        self._bar = Bar()
        self._work: Work | None = None
        self._pace = Pace()
        self._meter = Meter()  # of the training since it was last read
        self._images_per_second: float | None = None
        self._warm_at: float | None = None
        self._estimated = False
        self._title = ""  # of the epoch that trains; empty between epochs
        self._started = self._epoch_started = self._evaluation_started = self._line_at = 0.0
        self._tenth = 0
        self._counts = Counts()  # at the last line
        self._evaluated = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._started = self._epoch_started = self._line_at = time.monotonic()
        if trainer.is_global_zero:
            self._work = Work.of(trainer, self._tested)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._end_epoch(trainer)
        self._epoch_started, self._counts = time.monotonic(), Counts()

    def on_train_batch_start(self, *_: Any) -> None:
        self._meter.start(time.monotonic())

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if self._work is None:
            return
        self._title = _epoch(trainer)
        metrics: Any = pl_module.train_metrics
        images = batch.global_size / trainer.accumulate_grad_batches
        self._meter.images += images
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            last = batch_idx + 1 >= trainer.num_training_batches or trainer.global_step >= self._work.steps
            self._after_step(self._work, trainer.global_step, metrics, last)
        self._bar.advance(self._title, images, batch_idx, trainer.num_training_batches, metrics)

    def _after_step(self, work: Work, step: int, metrics: ClassificationMetrics, last_of_epoch: bool) -> None:
        """Print what is due after an optimizer step."""
        done, now, tenth = step - work.first_step, time.monotonic(), work.tenth(step)
        if done == WARM_UP_STEPS:
            self._measure(metrics)
            self._warm_at = time.monotonic()
        elif not self._estimated and self._has_measured_enough(done, now):
            self._measure(metrics)
            self._print_estimate(work, step)
        if tenth > self._tenth or now - self._line_at >= LINE_SECONDS:
            self._tenth, self._line_at = tenth, now
            if not last_of_epoch and not sys.stderr.isatty():  # otherwise the epoch's line or the bar shows the same
                before, self._counts = self._counts, self._measure(metrics)
                _print(self._title, *self._position(work, step), *self._counts.since(before))

    def _has_measured_enough(self, done: int, now: float) -> bool:
        warm = self._warm_at is not None and now - self._warm_at >= ESTIMATE_SECONDS
        return warm and done >= WARM_UP_STEPS + ESTIMATE_STEPS

    def _measure(self, metrics: ClassificationMetrics) -> Counts:
        """Read the meter when the device has done all steps that it has counted."""
        counts = Counts.of(metrics)
        self._read_meter()
        return counts

    def _read_meter(self) -> None:
        taken = self._meter.take(time.monotonic())
        self._images_per_second = taken.images_per_second or self._images_per_second
        if self._warm_at is not None:
            self._pace.training.add(taken)

    def _print_estimate(self, work: Work, step: int) -> None:
        self._estimated = True
        left, rate = self._pace.seconds_left(work, step), self._pace.training.images_per_second
        if left is not None and rate is not None:
            text = f"{rough(time.monotonic() - self._started + left)} for {work.length} at {speed(rate)}"
            _print(", with ".join(filter(None, [text, work.evaluations])))

    def _position(self, work: Work, step: int) -> Iterable[str]:
        yield f"step {step:,}/{work.steps:,}"
        if self._images_per_second:
            yield speed(self._images_per_second)
        left = self._pace.seconds_left(work, step)
        if left is not None:
            yield f"{clock(left)} left"

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._meter.stop(time.monotonic())

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._end_epoch(trainer)

    def _end_epoch(self, trainer: pl.Trainer) -> None:
        """Print the line of the epoch that has ended; its training metrics are complete only after its last hook."""
        if self._work is None or not self._title:
            return
        self._read_meter()
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if "/" in name}
        shown = [f"{name} {metrics[name]:.4f}" for name in sorted(metrics)]
        seconds = time.monotonic() - self._epoch_started
        _print(self._title, *self._position(self._work, trainer.global_step), *shown, f"{seconds:.1f} s")
        self._title, self._line_at = "", time.monotonic()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._begin_evaluation()

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._begin_evaluation()

    def _begin_evaluation(self) -> None:
        self._evaluation_started = self._line_at = time.monotonic()
        self._meter.stop(self._evaluation_started)
        self._evaluated = 0

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int, *_: Any
    ) -> None:
        self._after_evaluated(trainer, pl_module, "validation", batch, batch_idx, trainer.num_val_batches[0])

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int, *_: Any
    ) -> None:
        self._after_evaluated(trainer, pl_module, "test", batch, batch_idx, trainer.num_test_batches[0])

    def _after_evaluated(
        self, trainer: pl.Trainer, pl_module: Any, title: str, batch: Batch, batch_idx: int, batches: int | float
    ) -> None:
        if not trainer.is_global_zero:
            return
        now, done = time.monotonic(), batch_idx + 1
        if batch_idx == 0:  # the warm-up, left out of the speed
            self._evaluation_started = now
        else:
            self._evaluated += batch.global_size
        if now - self._line_at >= LINE_SECONDS and not sys.stderr.isatty() and done < batches:
            self._line_at = now
            counts, shown = Counts.of(pl_module.eval_metrics), []
            if self._evaluated:
                spent = time.monotonic() - self._evaluation_started
                left = spent / batch_idx * (batches - done)
                shown = [speed(self._evaluated / spent), f"{clock(left)} left"]
            _print(title, f"batch {done:,}/{batches:,}", *shown, *counts.since(Counts()))
        self._bar.advance(title, batch.global_size, batch_idx, batches, pl_module.eval_metrics)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._line_at = time.monotonic()
        self._pace.evaluation.add(Meter(self._evaluated, self._line_at - self._evaluation_started))

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._bar.close()


def _print(*parts: str) -> None:
    tqdm.write(wrapped(parts, columns()), file=sys.stderr)


def _epoch(trainer: pl.Trainer) -> str:
    last = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else "?"
    return f"epoch {trainer.current_epoch + 1}/{last}"
