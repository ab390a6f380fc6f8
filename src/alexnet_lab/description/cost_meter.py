"""Measures the first steps and a part of a validation of a run, and ends it."""

import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from alexnet_lab.callbacks.agreement import Agreement
from alexnet_lab.callbacks.pace import Meter, Work
from alexnet_lab.callbacks.stopwatch import WARM_UP_STEPS, stop
from alexnet_lab.data.spec import Batch
from alexnet_lab.errors import RunInterrupted
from alexnet_lab.runs import run_facts

MEASURED_STEPS = 5
MEASURED_BATCHES = 3
"""Of a validation, without its first one."""
MEASURED_SECONDS = 5.0
"""At least these are measured, where the run has as many; steps and validation each for this time."""


class Measured(RunInterrupted):
    """The run was ended, since all is measured."""


class CostMeter(pl.Callback):
    """Measures optimizer steps, a checkpoint in `folder`, and validation batches; then it raises `Measured`.

    The first `WARM_UP_STEPS` steps and the first batch of a validation are timed separately. `found` has the results
    on rank 0. All ranks end at the same step. A run that is shorter is measured as far as it goes.
    """

    def __init__(self, folder: str, started: float, tested: bool) -> None:
        self._checkpoint = Path(folder) / "measured.ckpt"
        self._started, self._tested = started, tested
        self._ranks = Agreement()
        self._steps = 0
        self._enough = False
        self._warm_up, self._training = Meter(), Meter()
        self._first_batch, self._evaluation = Meter(), Meter()
        self.found: dict[str, Any] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._ranks.join(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        work = Work.of(trainer, self._tested)
        _, evaluated = work.left(0)
        self.found = {
            "steps": work.steps,
            "steps_per_epoch": work.steps_per_epoch,
            "batch_size": work.batch_size,
            "validation_images": evaluated - work.test_images,
            "validations": (evaluated - work.test_images) // work.val_images if work.val_images else 0,
            "test_images": work.test_images,
            "ranks": trainer.world_size,
            "hardware": run_facts.hardware(trainer),
            "start_seconds": time.time() - self._started,
        }

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._current().start(time.time())

    def _current(self) -> Meter:
        return self._warm_up if self._steps < WARM_UP_STEPS else self._training

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        meter = self._current()
        meter.images += batch.global_size
        meter.lap(time.time())
        self._steps += 1
        if self._steps == WARM_UP_STEPS:
            stop(self._warm_up, pl_module.device)
            self._training.start(time.time())
        elif self._has_enough_steps():
            stop(self._training, pl_module.device)
            self._enough = True
            self._measure_checkpoint(trainer)
            # Lightning's own validation would wait for the end of the epoch.
            trainer.validating = True
            trainer.fit_loop.epoch_loop.val_loop.run()
            self._end(trainer)
            raise Measured("measured")  # nothing to validate

    def _has_enough_steps(self) -> bool:
        measured = self._steps - WARM_UP_STEPS
        if measured <= 0 or measured % MEASURED_STEPS:
            return False
        return bool(self._ranks.strongest(int(self._training.seconds >= MEASURED_SECONDS)))

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        stop(self._current(), pl_module.device)
        self._first_batch, self._evaluation = Meter(), Meter()
        self._first_batch.start(time.time())

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int, *_: Any
    ) -> None:
        meter = self._evaluation if batch_idx else self._first_batch
        meter.images += batch.global_size
        last = batch_idx + 1 >= trainer.num_val_batches[0]
        if not batch_idx or last or batch_idx % MEASURED_BATCHES == 0:
            stop(meter, pl_module.device)
        enough = False
        if batch_idx and (last or batch_idx % MEASURED_BATCHES == 0):
            enough = bool(self._ranks.strongest(int(self._evaluation.seconds >= MEASURED_SECONDS)))
        if self._enough and (enough or last):
            self._end(trainer)
            raise Measured("measured")
        self._evaluation.start(time.time())

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._evaluation.stop(time.time())
        if not trainer.is_last_batch:
            self._current().start(time.time())

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        stop(self._current(), pl_module.device)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._measure_checkpoint(trainer)
        self._end(trainer)

    def _measure_checkpoint(self, trainer: pl.Trainer) -> None:
        begun = time.time()
        trainer.save_checkpoint(self._checkpoint)
        self.found["checkpoint_seconds"] = time.time() - begun
        if trainer.is_global_zero:
            self.found["checkpoint_bytes"] = self._checkpoint.stat().st_size

    def _end(self, trainer: pl.Trainer) -> None:
        self.found |= {
            "warm_up_steps": min(self._steps, WARM_UP_STEPS),
            "warm_up_seconds": self._warm_up.seconds,
            "measured_steps": max(0, self._steps - WARM_UP_STEPS),
            "images": self._training.images,
            "seconds": self._training.seconds,
            "first_batch_images": self._first_batch.images,
            "first_batch_seconds": self._first_batch.seconds,
            "evaluated_images": self._evaluation.images,
            "evaluation_seconds": self._evaluation.seconds,
            "peak_memory_mb": run_facts.peak_memory(trainer),
        }
