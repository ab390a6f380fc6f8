"""Ends a training when a metric no longer improves."""

import logging
import math
from typing import Any, Literal, cast

import lightning.pytorch as pl

from alexnet_lab.errors import RunFailed, UserError
from alexnet_lab.position import between_epochs

ROUNDING = 1e-6
"""Lightning passes metrics on in float32."""

log = logging.getLogger(__name__)


class EarlyStopping(pl.callbacks.EarlyStopping):
    """Ends the training at the end of the epoch in which `monitor` has not improved in `patience` checks in a row.

    Metrics of validation are checked after each validation, those of training at the end of each epoch. The metric, the
    same on all ranks, improves if it is more than `min_delta` better than the best one so far. The training also ends
    when the metric reaches `stopping_threshold`. The run has then finished, and its result says why it ended.

    Lightning's class only determines the place among the callbacks: after the metrics, before the checkpoints. It also
    ends a run in the middle of an epoch, and trains another epoch if it is killed at the end.

    Raises:
        UserError: a value is out of range.
    """

    def __init__(
        self,
        monitor: str,
        mode: Literal["min", "max"],
        patience: int,
        min_delta: float = 0.0,
        stopping_threshold: float | None = None,
    ) -> None:
        super().__init__(monitor, mode=mode)
        if patience < 1 or min_delta < 0:
            raise UserError(
                f"early stopping needs patience >= 1 and min_delta >= 0, got patience={patience}, min_delta={min_delta}"
            )
        self.patience, self.min_delta, self.stopping_threshold = patience, min_delta, stopping_threshold
        self._sign = 1.0 if mode == "max" else -1.0
        self.best, self.waited = -self._sign * math.inf, 0

    @property
    def reason(self) -> str | None:
        """Why the training ends; None if it does not."""
        threshold = self.stopping_threshold
        if threshold is not None and self._sign * (self.best - threshold) >= -ROUNDING * abs(threshold):
            return f"{self.monitor} has reached {self.best:.4f}"
        if self.waited >= self.patience:
            return f"no improvement of {self.monitor} in {self.waited} checks; the best is {self.best:.4f}"
        return None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._after_validation = bool(trainer.limit_val_batches) and not self.monitor.startswith("train/")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if between_epochs(trainer):  # a run that was killed at its end; one in the middle of an epoch trains it whole
            self._end(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._after_validation and trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._check(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._after_validation:
            self._check(trainer)
        self._end(trainer, pl_module)

    def _check(self, trainer: pl.Trainer) -> None:
        if self.reason:  # since a validation in the middle of this epoch
            return
        metrics = trainer.callback_metrics
        if self.monitor not in metrics:
            raise RunFailed(f"early stopping: there is no metric {self.monitor}; there are: {', '.join(metrics)}")
        value = float(metrics[self.monitor])
        if self._sign * (value - self.best) > self.min_delta:
            self.best, self.waited = value, 0
        else:
            self.waited += 1

    def _end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.reason:
            log.info("early stopping: %s", self.reason)
            cast(Any, pl_module).ended_early = f"early stopping: {self.reason}"
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """As Lightning names it, and without `patience` and the other settings, which a continued run may change."""
        return {"best_score": self.best, "wait_count": self.waited}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.waited = float(state_dict["best_score"]), state_dict["wait_count"]
