"""The schedule of 2012, driven by the validation error.

Source: Krizhevsky, Sutskever, Hinton, NIPS 2012, section 5, which leaves open what counts as an improvement.
"""

import logging
import math

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from alexnet_lab.errors import UserError
from alexnet_lab.optim.schedules import is_scheduled

log = logging.getLogger(__name__)


def plateau_2012(
    optimizer: Optimizer,
    steps_per_epoch: int,
    total_steps: int,
    patience: int = 5,
    min_delta: float = 0.001,
    factor: float = 0.1,
    drops: int = 3,
) -> "Plateau2012":
    """Multiply lr by `factor` when the validation error stops improving, `drops` times; then end the run.

    patience: validations in a row without an improvement that make a plateau. min_delta: the smallest decrease of the
    error, as a fraction of 1, that counts as an improvement. Raises UserError for values out of range.
    """
    if patience < 1 or not 0 <= min_delta < 1 or not 0 < factor < 1 or drops < 0:
        raise UserError(
            "scheduler: needs patience >= 1, 0 <= min_delta < 1, 0 < factor < 1 and drops >= 0, got "
            f"patience={patience}, min_delta={min_delta}, factor={factor}, drops={drops}"
        )
    return Plateau2012(optimizer, patience, min_delta, factor, drops)


class Plateau2012(LRScheduler):
    """See `plateau_2012`. Call `validated` after each validation; the state dict holds its whole state.

    A plateau's end starts the next count; the lowest error is that of the whole run. The plateau after the last drop
    makes it `finished`.
    """

    def __init__(self, optimizer: Optimizer, patience: int, min_delta: float, factor: float, drops: int) -> None:
        self.patience, self.min_delta, self.factor, self.drops = patience, min_delta, factor, drops
        self.lowest, self.waited, self.dropped = math.inf, 0, 0
        self.finished = False
        super().__init__(optimizer)

    def validated(self, error: float) -> None:
        """Record a validation's `error`, 1 - top-1. A lower learning rate applies from the next step."""
        if error < self.lowest - self.min_delta:
            self.lowest, self.waited = error, 0
            return
        self.waited += 1
        if self.waited < self.patience:
            return
        self.waited = 0
        if self.dropped == self.drops:
            self.finished = True
            return
        self.dropped += 1
        for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = rate
        log.info("validation error %.4f: no more improvement; learning rate times %g", error, self.factor)

    def rule(self) -> str:
        """How the learning rate will change, in a sentence."""
        return (
            f"times {self.factor:g} after {self.patience} validations in a row whose error is not at least "
            f"{self.min_delta:g} below the lowest, {self.drops} times at most; the next such plateau ends the run"
        )

    def levels(self) -> list[list[float]]:
        """The learning rates of the groups before the first drop and after each."""
        return [[float(rate) for rate in self._rates(dropped)] for dropped in range(self.drops + 1)]

    def get_lr(self) -> list[float | Tensor]:
        """The learning rate of each group; steps do not change it."""
        return self._rates(self.dropped)

    def _rates(self, dropped: int) -> list[float | Tensor]:
        low = self.factor**dropped
        groups = zip(self.optimizer.param_groups, self.base_lrs, strict=True)
        return [base * low if is_scheduled(group) else base for group, base in groups]
