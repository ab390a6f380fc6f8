"""Learning-rate schedules, advanced once per optimizer step. They scale the optimizer's own `lr`.

A factory gets the optimizer, the steps of one epoch and the steps of the whole run. A parameter group whose `scheduled`
is false, as in `sgd_2012`, keeps its learning rate.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import lightning.pytorch as pl
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ConstantLR, LambdaLR, LRScheduler

from alexnet_lab.errors import UserError

LR_FACTOR = "lr_factor"
"""Key of a parameter group whose learning rate is this factor times the optimizer's; without it the factor is 1."""


@runtime_checkable
class WatchesValidation(Protocol):
    """A schedule that receives the error of each validation and may end the run at the end of an epoch."""

    finished: bool

    def validated(self, error: float) -> None:
        """`error` is 1 - top-1, the same on all ranks."""


def steps_of(trainer: pl.Trainer) -> tuple[int, int]:
    """The optimizer steps of one epoch and of the whole run; the trainer knows its data.

    Raises:
        UserError: the run has no length, or an epoch ends between the micro-batches of a step.
    """
    total_steps, accumulate = trainer.estimated_stepping_batches, trainer.accumulate_grad_batches
    if math.isinf(total_steps):
        raise UserError("trainer.max_epochs=-1 needs trainer.max_steps: a schedule needs the length of the run")
    steps_per_epoch, rest = divmod(int(trainer.num_training_batches), accumulate)
    if rest:
        raise UserError(
            f"trainer.limit_train_batches counts micro-batches: {trainer.num_training_batches} is not a multiple of "
            f"trainer.accumulate_grad_batches={accumulate}"
        )
    return steps_per_epoch, int(total_steps)


def constant(optimizer: Optimizer, steps_per_epoch: int, total_steps: int) -> LRScheduler:
    """The optimizer's learning rate, unchanged."""
    return ConstantLR(optimizer, factor=1.0, total_iters=0)


def step(
    optimizer: Optimizer, steps_per_epoch: int, total_steps: int, epochs: int = 30, factor: float = 0.1
) -> LRScheduler:
    """Multiply lr by `factor` every `epochs` epochs (torchvision `references/classification`: 30, 0.1)."""
    if epochs < 1 or factor <= 0:
        raise UserError(f"scheduler: epochs must be at least 1 and factor above 0, got {epochs} and {factor}")
    length = epochs * steps_per_epoch
    return scaled(optimizer, lambda step: factor ** (step // length))


def cosine(optimizer: Optimizer, steps_per_epoch: int, total_steps: int, warmup_epochs: float = 0.0) -> LRScheduler:
    """Linear from zero during `warmup_epochs`, then half a cosine down to zero at the last step.

    Source: Loshchilov and Hutter, SGDR, ICLR 2017, equation 5 without restarts.
    """
    warmup = round(warmup_epochs * steps_per_epoch)
    if warmup_epochs < 0 or warmup >= total_steps:
        raise UserError(f"scheduler.warmup_epochs={warmup_epochs} must be shorter than the run and not negative")

    def rate(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total_steps - warmup)))

    return scaled(optimizer, rate)


def one_cycle(
    optimizer: Optimizer,
    steps_per_epoch: int,
    total_steps: int,
    rise: float = 0.3,
    start_factor: float = 0.04,
    end_factor: float = 4e-6,
) -> LRScheduler:
    """Up by half a cosine to the optimizer's lr in the first `rise` of all steps, then down by another.

    `start_factor` and `end_factor` are the first and the last lr divided by the optimizer's.

    Source: Smith and Topin, 2018.
    """
    if not 0 < rise < 1 or not 0 < start_factor <= 1 or not 0 < end_factor <= start_factor:
        raise UserError(
            f"scheduler: needs 0 < rise < 1 and 0 < end_factor <= start_factor <= 1, "
            f"got rise={rise}, start_factor={start_factor}, end_factor={end_factor}"
        )
    top, last = rise * total_steps - 1, total_steps - 1

    def rate(step: int) -> float:
        if step < top:
            return _half_cosine(start_factor, 1.0, step / top)
        return _half_cosine(1.0, end_factor, min(1.0, (step - top) / (last - top)))

    # torch's OneCycleLR keeps the number of steps in its state, so a run that is extended would end in an error.
    return scaled(optimizer, rate)


def rising(optimizer: Optimizer, steps_per_epoch: int, total_steps: int, last_factor: float) -> LRScheduler:
    """Exponentially from lr to lr times `last_factor` at the last step, in every parameter group.

    Source: Smith, Cyclical learning rates for training neural networks, WACV 2017, section 3.3, there linear.
    """
    return LambdaLR(optimizer, lambda step: last_factor ** (step / max(1, total_steps - 1)))


def scaled(optimizer: Optimizer, factor: Callable[[int], float]) -> LRScheduler:
    """The learning rates of the scheduled groups times `factor`, a function of the number of steps done."""
    return LambdaLR(optimizer, [factor if is_scheduled(group) else _one for group in optimizer.param_groups])


def logged_lr(group: Mapping[str, Any]) -> float:
    """The learning rate that is logged as `lr` for a run whose first parameter group is `group`, without its factor."""
    rate: float = group["lr"] / (group.get(LR_FACTOR) or 1)
    return rate


def is_scheduled(group: dict[str, Any]) -> bool:
    """Whether schedules may change the learning rate of this parameter group."""
    return bool(group.get("scheduled", True))


def _one(step: int) -> float:
    return 1.0


def _half_cosine(start: float, end: float, progress: float) -> float:
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * progress))
