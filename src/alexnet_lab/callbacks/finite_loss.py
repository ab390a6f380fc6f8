"""Ends a run whose loss is NaN or infinite, before it costs more time or overwrites a good checkpoint."""

import math
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from alexnet_lab.errors import RunFailed

MOST = 500
"""Losses between two checks on an accelerator, at most."""


class FiniteLoss(pl.Callback):
    """Raises `RunFailed` with the optimizer step and the learning rate at which the loss became NaN or infinite.

    On the CPU every loss is checked. On an accelerator each check waits for the device, so the losses are checked
    together: at logged steps, which wait as well, and at least every `MOST` losses.
    """

    def __init__(self) -> None:
        self._pending: list[tuple[int, float, Tensor]] = []
        self._rate = 0.0
        self._step = 0  # done at the end of the last batch

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self._rate = trainer.optimizers[0].param_groups[0]["lr"]  # the step's own; at its end it is the next one's

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._check_evaluation(trainer, "val/loss")

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._check_evaluation(trainer, "test/loss")

    def _check_evaluation(self, trainer: pl.Trainer, name: str) -> None:
        loss = float(trainer.callback_metrics.get(name, 0.0))
        if not math.isfinite(loss):
            raise RunFailed(
                f"{name} became {loss} after step {trainer.global_step} with a learning rate of {self._rate:g}"
            )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs["loss"].detach()
        at_once = pl_module.device.type == "cpu"
        if at_once and math.isfinite(loss.item()):
            return
        self._pending.append((trainer.global_step, self._rate, loss))
        before, self._step = self._step, trainer.global_step
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        is_logged = self._step != before and every and self._step % every == 0
        if at_once or is_logged or len(self._pending) >= MOST:
            self._check()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._check()

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: Any) -> None:
        self._check()

    def _check(self) -> None:
        pending, self._pending = self._pending, []
        if not pending or torch.stack([loss for _, _, loss in pending]).isfinite().all():
            return
        step, rate, loss = next(entry for entry in pending if not entry[2].isfinite())
        raise RunFailed(
            f"the loss became {float(loss)} at step {step} with a learning rate of {rate:g}; "
            "a smaller optimizer.lr, a warm-up or trainer.gradient_clip_val usually helps"
        )
