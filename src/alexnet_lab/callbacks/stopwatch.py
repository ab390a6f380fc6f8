"""How long a run took and how fast it trained, over all its sessions."""

import time
from typing import Any

import lightning.pytorch as pl

from alexnet_lab.data.spec import Batch


class Stopwatch(pl.Callback):
    """`seconds` of the whole run and training `images_per_second` over all ranks, without validation and start-up.

    Its state travels in checkpoints, so a continued run counts what came before.
    """

    def __init__(self, started: float) -> None:
        self._started = started
        self._before = 0.0
        self._images = 0
        self._training_seconds = 0.0
        self._mark = started
        self.validated_at: dict[int, float] = {}
        """`seconds` at the end of each validation, by optimizer step."""

    @property
    def seconds(self) -> float:
        """Wall time in s of this session and the sessions it continues."""
        return self._before + time.time() - self._started

    @property
    def images_per_second(self) -> float | None:
        """Training samples per second; None before the first step."""
        return self._images / self._training_seconds if self._images else None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._mark = time.time()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._mark = time.time()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._mark = time.time()
        self.validated_at[trainer.global_step] = self.seconds

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        now = time.time()
        self._training_seconds += now - self._mark
        self._mark = now
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self._images += batch.global_size

    def state_dict(self) -> dict[str, Any]:
        return {
            "seconds": self.seconds,
            "images": self._images,
            "training_seconds": self._training_seconds,
            "validated_at": dict(self.validated_at),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._before = state_dict["seconds"]
        self._images, self._training_seconds = state_dict["images"], state_dict["training_seconds"]
        self.validated_at = dict(state_dict.get("validated_at", {}))
