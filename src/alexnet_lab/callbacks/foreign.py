"""Lightning callbacks that are refused, with the reasons: a run with them could not keep its guarantees."""

from collections.abc import Mapping

import lightning.pytorch as pl
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    BatchSizeFinder,
    EMAWeightAveraging,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelPruning,
    StochasticWeightAveraging,
    Timer,
    WeightAveraging,
)
from lightning.pytorch.utilities.model_helpers import is_overridden

from alexnet_lab.errors import UserError

REFUSED: dict[type[pl.Callback], str] = {
    GradientAccumulationScheduler: "it changes the number of images per optimizer step during a run, and a run has one "
    "global batch, data.batch_size, which trainer.accumulate_grad_batches splits; use a larger data.batch_size, or a "
    "scheduler that lowers the learning rate",
    StochasticWeightAveraging: "it never validates the average, and its runs cannot be continued exactly; use "
    "callbacks=ema, or lightning.pytorch.callbacks.WeightAveraging for the plain mean",
    BatchSizeFinder: "it changes data.batch_size, and with it the gradient, without recording it; sweep "
    "over it (-m data.batch_size=64,128), or split the batch with trainer.accumulate_grad_batches if memory is short",
    LearningRateFinder: "the learning rate belongs to the optimizer, and the module has no attribute `lr`; tune=lr "
    "runs a range test and suggests optimizer.lr",
    BackboneFinetuning: "the module has no attribute `backbone`; write your own BaseFinetuning, which can freeze parts "
    "of pl_module.net",
    ModelPruning: "it renames the network's parameters, so its checkpoints do not fit the network",
}
BEFORE_VALIDATED = ("on_validation_start", "on_validation_epoch_start", "on_validation_batch_start")
"""Hooks in which a callback may replace the weights by those to validate."""
OURS = "alexnet_lab."


def check_callbacks(callbacks: Mapping[str, pl.Callback], whole_network: bool) -> None:
    """`callbacks` by their keys in the configuration; `whole_network`: whether each process trains all of it.

    Raises:
        UserError: one of `REFUSED`, a timer that stops the run, an average that is never updated, more than one
            average, or one where a process has a part of the weights.
    """
    for name, callback in callbacks.items():
        for kind, reason in REFUSED.items():
            if isinstance(callback, kind):
                raise UserError(f"callbacks.{name}: {type(callback).__name__} cannot be used: {reason}")
        if isinstance(callback, Timer) and callback.time_remaining() is not None:
            raise UserError(
                f"callbacks.{name}: a Timer with a duration ends a run as if it had finished; use trainer.max_time"
            )
        if isinstance(callback, EMAWeightAveraging) and _never_updates(callback):
            raise UserError(
                f"callbacks.{name}.update_every_n_steps={callback.update_every_n_steps} never updates the average; "
                "1 updates it after each step"
            )
    averaging = [f"callbacks.{name}" for name, one in callbacks.items() if isinstance(one, WeightAveraging)]
    if len(averaging) > 1:
        raise UserError(f"{' and '.join(averaging)} both average the weights: choose one")
    if averaging and not whole_network:
        raise UserError(f"{averaging[0]}: averaging needs the whole network in each process: trainer=ddp")


def _never_updates(callback: EMAWeightAveraging) -> bool:
    return callback.update_every_n_steps < 1 and callback.update_starting_at_epoch is None


def averages_nothing_yet(callback: pl.Callback) -> bool:
    """Whether a callback validates an average that has not been updated: the weights from before the first step."""
    average = getattr(callback, "_average_model", None) if isinstance(callback, WeightAveraging) else None
    return average is not None and int(average.n_averaged) == 0


def may_exchange_weights(trainer: pl.Trainer) -> bool:
    """Whether a callback may validate other weights than those that are trained. Our own do not."""
    theirs = [one for one in trainer.callbacks if not type(one).__module__.startswith(OURS)]  # type: ignore[attr-defined]
    return any(is_overridden(hook, one, pl.Callback) for one in theirs for hook in BEFORE_VALIDATED)
