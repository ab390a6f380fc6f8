"""A bar per pass over the data with images per second, time left and top-1; one line per epoch without a terminal."""

import sys
import time
from typing import Any, cast

import lightning.pytorch as pl
from tqdm import tqdm

from alexnet_lab.data.spec import Batch
from alexnet_lab.metrics import ClassificationMetrics

REFRESH_SECONDS = 0.2


class Progress(pl.Callback):
    """Shows on standard error how far rank 0 is.

    The figures are fetched from the device at most five times a second, so that watching does not slow the training.
    """

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._images = 0
        self._shown_at = 0.0
        self._title = ""
        self._started = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._say_epoch(trainer)
        self._title, self._started = _epoch(trainer), time.monotonic()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._say_epoch(trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        metrics = cast(ClassificationMetrics, pl_module.train_metrics)
        self._advance(trainer, _epoch(trainer), batch, batch_idx, trainer.num_training_batches, metrics)

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int, *_: Any
    ) -> None:
        metrics = cast(ClassificationMetrics, pl_module.eval_metrics)
        self._advance(trainer, "validation", batch, batch_idx, trainer.num_val_batches[0], metrics)

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int, *_: Any
    ) -> None:
        metrics = cast(ClassificationMetrics, pl_module.eval_metrics)
        self._advance(trainer, "test", batch, batch_idx, trainer.num_test_batches[0], metrics)

    def _say_epoch(self, trainer: pl.Trainer) -> None:
        """A line about the epoch that has ended; its training figures are complete only after its last hook."""
        if trainer.is_global_zero and self._title:
            figures = {name: float(value) for name, value in trainer.callback_metrics.items() if "/" in name}
            shown = "  ".join(f"{name} {figures[name]:.4f}" for name in sorted(figures))
            tqdm.write(f"{self._title}  {shown}  {time.monotonic() - self._started:.1f} s", file=sys.stderr)
        self._title = ""

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._close()

    def _advance(
        self,
        trainer: pl.Trainer,
        title: str,
        batch: Batch,
        batch_idx: int,
        batches: int | float,
        metrics: ClassificationMetrics,
    ) -> None:
        if not trainer.is_global_zero or not sys.stderr.isatty():
            return
        if self._bar is None:
            size = batch.global_size
            self._bar = tqdm(
                total=int(batches) * size,
                initial=batch_idx * size,
                desc=title,
                unit="image",
                unit_scale=True,
                leave=False,
                dynamic_ncols=True,
                mininterval=0,
            )
        self._images += batch.global_size
        now = time.monotonic()
        if now - self._shown_at > REFRESH_SECONDS:
            self._shown_at = now
            count = max(1, int(metrics.count))
            self._bar.set_postfix_str(f"top1 {int(metrics.top1) / count:.3f}", refresh=False)
            self._bar.update(self._images)
            self._images = 0
        if batch_idx + 1 >= batches:
            self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar, self._images = None, 0


def _epoch(trainer: pl.Trainer) -> str:
    last = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else "?"
    return f"epoch {trainer.current_epoch + 1}/{last}"
