"""How long a run took and how fast it trained, over all its sessions."""

import time
from typing import Any

import lightning.pytorch as pl
import torch

from alexnet_lab.callbacks.pace import Meter
from alexnet_lab.data.spec import Batch

WARM_UP_STEPS = 3
"""Steps of each session that are left out: networks are compiled, and cuDNN chooses its algorithms."""


class Stopwatch(pl.Callback):
    """`seconds` of the whole run and training `images_per_second` over all ranks, without validation and start-up.

    A GPU lags behind the host; the time ends when it has done its work. The first steps of each session count only if
    no others were measured. The state travels in checkpoints, so a continued run counts what came before.
    """

    def __init__(self, started: float) -> None:
        self._started = started
        self._before = 0.0
        self._steps = 0  # of this session
        self._first = Meter()
        """Of this session's first steps."""
        self._others = Meter()
        """Of all other steps, over all sessions."""
        self.validated_at: dict[int, float] = {}
        """`seconds` at the end of each validation, by optimizer step."""

    @property
    def seconds(self) -> float:
        """Wall time in s of this session and the sessions it continues."""
        return self._before + time.time() - self._started

    @property
    def images_per_second(self) -> float | None:
        """Training samples per second; None before the first step."""
        return self._measured().images_per_second

    def _measured(self) -> Meter:
        return self._others if self._others.images else self._first

    def _current(self) -> Meter:
        return self._first if self._steps < WARM_UP_STEPS else self._others

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._current().start(time.time())  # also in the middle of an epoch, which then has no start

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._current().start(time.time())

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        meter = self._current()
        meter.lap(time.time())
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        meter.images += batch.global_size
        self._steps += 1
        if self._steps == WARM_UP_STEPS:
            stop(self._first, pl_module.device)
            self._others.start(time.time())

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        stop(self._current(), pl_module.device)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.validated_at[trainer.global_step] = self.seconds
        if not trainer.is_last_batch:  # otherwise the next epoch starts the time
            self._current().start(time.time())

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        stop(self._current(), pl_module.device)

    def state_dict(self) -> dict[str, Any]:
        measured = self._measured()
        return {
            "seconds": self.seconds,
            "images": measured.images,
            "training_seconds": measured.seconds,
            "validated_at": dict(self.validated_at),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._before = state_dict["seconds"]
        self._others = Meter(state_dict["images"], state_dict["training_seconds"])
        self.validated_at = dict(state_dict.get("validated_at", {}))


def stop(meter: Meter, device: torch.device) -> None:
    """Stop `meter` when the device has done its work."""
    if device.type != "cpu" and torch.accelerator.is_available():
        torch.accelerator.synchronize()
    meter.stop(time.time())
