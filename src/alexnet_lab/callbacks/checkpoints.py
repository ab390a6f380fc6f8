"""Saves the run: the last state at every epoch's end and every few minutes, the best weights by val/top1.

A signal that asks the run to stop is answered here too, since stopping means saving at a point that can be continued.
"""

import logging
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from alexnet_lab import files
from alexnet_lab.errors import RunInterrupted, cannot_be_written

log = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
GO_ON, SAVE, STOP = 0, 1, 2


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place, flushes it to disk, and renames it: a kill leaves the older one whole.

    On a full disk the older one stays, too, and RunFailed is raised.
    `payload` are plain entries added to every checkpoint; lightning's hook for it leaves weights-only ones out.
    """

    def __init__(self, payload: Mapping[str, Any]) -> None:
        super().__init__()
        self._payload = payload

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            with files.replacing(Path(path)) as unfinished, unfinished.open("wb") as file:
                torch.save({**checkpoint, **self._payload}, file)
        except Exception as error:
            cause = error if isinstance(error, OSError) else error.__context__  # torch raises an error of its own
            if isinstance(cause, OSError):
                raise cannot_be_written(path, cause) from error
            raise


class Checkpoints(Checkpoint):
    """Keeps `last` and `best` and answers stop signals; all ranks act at the same optimizer step.

    `last` can be continued bit for bit; `best` holds the weights without the optimizer's state. With `keep` false
    nothing is written, and stopping is all it does.

    As a `Checkpoint`, lightning calls it after everything else has seen the epoch's end.
    """

    def __init__(self, last: Path, best: Path, every_minutes: float, keep: bool) -> None:
        self.last, self.best, self.keep = last, best, keep
        self.best_top1 = -1.0
        self.best_epoch = -1
        self._every_seconds = every_minutes * 60
        self._saved_at = time.monotonic()
        self._stop_requested = False
        self._cut_at = -1
        self._group: Any = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        # A group of its own on the host: agreeing must not wait for the GPU.
        if trainer.world_size > 1 and self._group is None:
            self._group = torch.distributed.new_group(backend="gloo")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._saved_at = time.monotonic()
        # Here and not earlier: lightning's own handlers, set at the start of fit, communicate inside the handler.
        self._listen()

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._listen()

    def _listen(self) -> None:
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stop_requested = True

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Lightning would skip a validation that is due right after the batch of the checkpoint it continues from.
        done = batch_idx + 1
        between_steps = done % trainer.accumulate_grad_batches != 0
        if not between_steps and done < trainer.num_training_batches and self._is_last_step(trainer):
            # Lightning will call the epoch finished; a run that is made longer goes on in its middle.
            self._cut_at = trainer.global_step
            self._save_last(trainer)
        if between_steps or done % int(trainer.val_check_batch or done) == 0 or done == trainer.num_training_batches:
            return
        action = self._agree(trainer)
        if action != GO_ON:
            self._save_last(trainer)
        if action == STOP:
            raise RunInterrupted

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        if trainer.state.fn == "fit" and self._agree(trainer) == STOP:
            # Nothing has changed since the last training batch: continue from there, with the whole validation.
            progress = trainer.fit_loop.epoch_loop.val_loop.batch_progress
            progress.reset()
            progress.increment_ready()
            progress.increment_started()
            progress.current.reset()
            self._save_last(trainer)
            raise RunInterrupted

    def on_test_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        if self._agree(trainer) == STOP:
            raise RunInterrupted

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        top1 = trainer.callback_metrics.get("val/top1")
        if trainer.state.fn == "fit" and top1 is not None and float(top1) > self.best_top1:
            self.best_top1, self.best_epoch = float(top1), trainer.current_epoch
            if self.keep:
                trainer.save_checkpoint(self.best, weights_only=True)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step != self._cut_at:
            self._save_last(trainer)
        if self._agree(trainer) == STOP:
            raise RunInterrupted

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Lightning's place in the epoch is in micro-batches: where a step has another number of them now, it moves."""
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

    def _is_last_step(self, trainer: pl.Trainer) -> bool:
        return trainer.should_stop or trainer.global_step == trainer.max_steps

    def _save_last(self, trainer: pl.Trainer) -> None:
        if self.keep:
            trainer.save_checkpoint(self.last)
        self._saved_at = time.monotonic()

    def _agree(self, trainer: pl.Trainer) -> int:
        """What all ranks do now: the strongest wish of any of them."""
        due = time.monotonic() - self._saved_at > self._every_seconds
        wish = STOP if self._stop_requested else SAVE if due and self.keep else GO_ON
        if self._group is None:
            return wish
        shared = torch.tensor(wish)
        torch.distributed.all_reduce(shared, torch.distributed.ReduceOp.MAX, group=self._group)
        return int(shared)
