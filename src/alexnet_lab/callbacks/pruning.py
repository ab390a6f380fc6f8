"""Ends a trial of a search early, where the search has a pruner."""

from collections.abc import Callable

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint

from alexnet_lab.callbacks.checkpoints import Checkpoints
from alexnet_lab.callbacks.question import Question
from alexnet_lab.errors import RunPruned


class Pruning(Checkpoint):
    """Asks after each epoch whether the trial ends, and raises RunPruned on all ranks if so.

    As a `Checkpoint` that is listed after `checkpoints`, Lightning calls it when the epoch is saved. A continued run
    asks again about the epoch before: it may have been killed before it had its answer. `progress` is called while it
    waits.
    """

    def __init__(self, question: Question, checkpoints: Checkpoints, progress: Callable[[], None]) -> None:
        self._question, self._checkpoints, self._progress = question, checkpoints, progress
        self._has_asked = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._ask(trainer, trainer.current_epoch - 1)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._ask(trainer, trainer.current_epoch)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._has_asked:  # nothing was left to train
            self._ask(trainer, trainer.current_epoch - 1)

    def _ask(self, trainer: pl.Trainer, epoch: int) -> None:
        self._has_asked = True
        if epoch < 0:
            return
        pruned = trainer.is_global_zero and self._question.ask(epoch, self._waiting)
        if self._checkpoints.ranks.strongest(int(pruned)):
            self._checkpoints.finish_writing(trainer)
            raise RunPruned(f"epoch {epoch + 1}")

    def _waiting(self) -> bool:
        self._progress()
        return not self._checkpoints.stop_requested()
