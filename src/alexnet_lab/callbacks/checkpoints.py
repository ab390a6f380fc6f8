"""Saves the run: the last state at every epoch's end and every few minutes, the best weights by val/top1.

Requests to stop are answered here too, since stopping means saving at a point that can be continued.
"""

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint, WeightAveraging

from alexnet_lab import files
from alexnet_lab.callbacks.agreement import Agreement
from alexnet_lab.callbacks.checkpoint_io import AtomicCheckpointIO
from alexnet_lab.callbacks.foreign import averages_nothing_yet, may_exchange_weights
from alexnet_lab.errors import RunInterrupted
from alexnet_lab.metrics import ClassificationMetrics

log = logging.getLogger(__name__)

GO_ON, SAVE, TIME_IS_UP, STOP = 0, 1, 2, 3
REASONS = {TIME_IS_UP: "max_time", STOP: "signal"}


class Checkpoints(Checkpoint):
    """Keeps `last` and `best` and answers requests to stop; all ranks act at the same optimizer step, see `ranks`.

    `last` can be continued bit for bit; `best` contains the weights without the optimizer's state. With `keep` false,
    it only stops the run and writes nothing. `stop_requested` returns whether the run was asked to stop. After
    `max_seconds` of training since this start, the run stops as well, but not before this start has done a step or a
    validation, and not after the last step. `writer` is the trainer's; each step checks whether its writes succeeded.

    Lightning calls a `Checkpoint` after all other callbacks at the end of an epoch. `validated` must be called before
    all other callbacks, see there.
    """

    def __init__(
        self,
        last: Path,
        best: Path,
        every_minutes: float,
        keep: bool,
        max_seconds: float | None = None,
        stop_requested: Callable[[], bool] = lambda: False,
        writer: AtomicCheckpointIO | None = None,
    ) -> None:
        self.last, self.best, self.keep = last, best, keep
        self._writer = writer or AtomicCheckpointIO({})
        self.best_top1 = -1.0
        self.best_epoch = -1
        self._every_seconds = every_minutes * 60
        self._saved_at = time.monotonic()
        self._max_seconds = math.inf if max_seconds is None else max_seconds
        self._deadline = math.inf
        self._has_advanced = False  # in this start: a step or a validation is done
        self.stop_requested = stop_requested
        self._others_are_validated = self._test_goes_on = False
        self._cut_at = -1
        self.ranks = Agreement()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.ranks.join(trainer)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # The state of the checkpoint is loaded. Where nothing is left to train, no later hook is called.
        if trainer.is_global_zero:
            self._put_aside_another_epoch()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._saved_at = time.monotonic()
        self._deadline = self._saved_at + self._max_seconds
        self._others_are_validated = may_exchange_weights(trainer)

    def _put_aside_another_epoch(self) -> None:
        """Rename a `best` that is not of `best_epoch`, as when a run continues from an older checkpoint.

        It is from an epoch that is now trained again. The new name contains the epoch.
        """
        if not self.best.exists():
            return
        epoch = torch.load(self.best, map_location="cpu", weights_only=True, mmap=True)["epoch"]
        if epoch != self.best_epoch:
            aside = self._aside(epoch)
            files.move_over(self.best, aside)
            log.warning("%s is from an epoch that is now trained again; it was renamed to %s", self.best, aside.name)

    def _aside(self, epoch: int) -> Path:
        return self.best.with_name(f"{self.best.stem}-epoch-{epoch + 1}{self.best.suffix}")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._writer.check()
        # Lightning would skip a validation that is due right after the batch of the checkpoint it continues from.
        done = batch_idx + 1
        between_steps = done % trainer.accumulate_grad_batches != 0
        if not between_steps and done < trainer.num_training_batches and self._is_last_step(trainer):
            # Lightning will call the epoch finished; a run that is made longer continues in its middle.
            self._cut_at = trainer.global_step
            self._save_last(trainer)
        self._has_advanced = self._has_advanced or not between_steps
        if between_steps or done % int(trainer.val_check_batch or done) == 0 or done == trainer.num_training_batches:
            return
        action = self._agree(trainer)
        if action != GO_ON:
            self._save_last(trainer)
        self._stop_if(trainer, action)

    def validated(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Save `best` when the last batch of a validation was computed and its top-1 is the highest so far.

        To be called as the first callback's `on_validation_batch_end`: the network still holds the weights that were
        validated. A callback that averages them takes the average out again before the metrics are reported.
        """
        if trainer.state.fn != "fit" or batch_idx + 1 < trainer.num_val_batches[0]:
            return
        if trainer.global_step and any(map(averages_nothing_yet, trainer.callbacks)):  # type: ignore[attr-defined]
            log.warning("validated the initial weights, since the average of the weights has not been updated yet")
        metrics = cast(ClassificationMetrics, pl_module.eval_metrics).compute()
        # Weights with a non-finite loss end the run, and must not replace good ones first.
        if metrics and metrics["top1"] > self.best_top1 and math.isfinite(metrics["loss"]):
            self.best_top1, self.best_epoch = metrics["top1"], trainer.current_epoch
            if self.keep:
                trainer.save_checkpoint(self.best, weights_only=True)
                self._remove_aside(trainer)

    def _remove_aside(self, trainer: pl.Trainer) -> None:
        aside = self._aside(self.best_epoch)
        if trainer.is_global_zero and aside.exists():
            self._writer.wait()  # until `best` replaces it
            aside.unlink()

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        self._writer.check()
        if trainer.state.fn != "fit" or self._others_are_validated:
            return  # a stop waits for the end of the validation, when the network has the trained weights again
        action = self._agree(trainer)
        if action in REASONS:
            # Nothing has changed since the last training batch: continue from there, with the whole validation.
            progress = trainer.fit_loop.epoch_loop.val_loop.batch_progress
            progress.reset()
            progress.increment_ready()
            progress.increment_started()
            progress.current.reset()
            self._save_last(trainer)
        self._stop_if(trainer, action)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._has_advanced = True

    def on_test_batch_end(self, *_: Any) -> None:
        if self.stop_requested() and not self._test_goes_on:
            self._test_goes_on = True
            log.info("the training has finished; the run ends after the test")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step != self._cut_at:
            self._save_last(trainer)
        self._stop_if(trainer, self._agree(trainer, at_once=True))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.finish_writing(trainer)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Adapt the checkpoint to what has changed between the run's starts."""
        averages = any(isinstance(one, WeightAveraging) for one in trainer.callbacks)  # type: ignore[attr-defined]
        if "current_model_state" in checkpoint and not averages:
            # The run averaged its weights before and does not now: training continues from those that it trained.
            trainer.strategy.load_model_state_dict({"state_dict": checkpoint["current_model_state"]})
        # Lightning's place in the epoch is in micro-batches: where a step has another number of them now, it moves.
        before, now = checkpoint["config"]["trainer"].get("accumulate_grad_batches", 1), trainer.accumulate_grad_batches
        done = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]
        not_completed = done["processed"] - done["completed"]  # the one whose end wrote the checkpoint
        for name in ("ready", "started", "processed"):
            done[name] = done[name] // before * now
        done["completed"] = done["processed"] - not_completed

    def state_dict(self) -> dict[str, Any]:
        return {"best_top1": self.best_top1, "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_top1, self.best_epoch = state_dict["best_top1"], state_dict["best_epoch"]

    def finish_writing(self, trainer: pl.Trainer) -> None:
        """Wait until the checkpoints are on the disk, on all ranks; raises the error of a write that has failed."""
        self._writer.wait()
        if trainer.world_size > 1:
            trainer.strategy.barrier()

    def on_disk(self) -> dict[str, Path]:
        """The files of `last` and `best` that exist once nothing is being written any more."""
        self._writer.teardown()
        return {name: path for name, path in {"last": self.last, "best": self.best}.items() if path.exists()}

    def _stop_if(self, trainer: pl.Trainer, action: int) -> None:
        if action in REASONS:
            self.finish_writing(trainer)
            raise RunInterrupted(REASONS[action])

    def _is_last_step(self, trainer: pl.Trainer) -> bool:
        stops_early = trainer.should_stop and trainer.fit_loop._can_stop_early
        return stops_early or trainer.global_step == trainer.max_steps

    def _is_complete(self, trainer: pl.Trainer) -> bool:
        epochs = trainer.fit_loop.epoch_progress.current.processed  # type: ignore[attr-defined]
        return self._is_last_step(trainer) or 0 <= (trainer.max_epochs or -1) <= epochs

    def _save_last(self, trainer: pl.Trainer) -> None:
        if self.keep:
            trainer.save_checkpoint(self.last)
        self._saved_at = time.monotonic()
        self.ranks.forget()  # this is the checkpoint that they requested

    def _request(self, trainer: pl.Trainer) -> int:
        now = time.monotonic()
        if self.stop_requested():
            return STOP
        # A start that does less than a step, or less than a validation, would be followed by others like it.
        if now > self._deadline and self._has_advanced:
            return TIME_IS_UP
        return SAVE if self.keep and now - self._saved_at > self._every_seconds else GO_ON

    def _agree(self, trainer: pl.Trainer, at_once: bool = False) -> int:
        """The common action of all ranks: the strongest request of any rank.

        With several ranks, unless `at_once`, it is the strongest one of the step or batch before, so that no rank waits
        for another one.
        """
        request = self._request(trainer)
        action = self.ranks.strongest(request) if at_once else self.ranks.strongest_before(request)
        return GO_ON if action == TIME_IS_UP and self._is_complete(trainer) else action
