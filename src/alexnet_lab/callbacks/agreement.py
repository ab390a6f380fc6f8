"""One decision for all ranks, at the same optimizer step."""

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.distributed import ReduceOp, Work


class Agreement:
    """The largest request of all ranks, which all call the same methods in the same order. One rank agrees at once.

    The ranks exchange their requests on the host (gloo), which does not wait for the GPU.
    """

    def __init__(self) -> None:
        self._group: Any = None
        self._started: tuple[Work, Tensor] | None = None

    def join(self, trainer: pl.Trainer) -> None:
        """Create the group of ranks; collective. To be called before all others."""
        if trainer.world_size > 1 and self._group is None:
            timeout = getattr(trainer.strategy, "_timeout", None)
            self._group = torch.distributed.new_group(backend="gloo", timeout=timeout)

    def strongest(self, request: int) -> int:
        """The largest `request` of this call. Waits for all ranks."""
        self.forget()
        self._start(request)
        return self._finish(request)

    def strongest_before(self, request: int) -> int:
        """The largest `request` of the call before; with one rank, `request`.

        All ranks have long made that call, unless one is a whole step behind, so this does not wait.
        """
        before = self._finish(request if self._group is None else 0)
        self._start(request)
        return before

    def forget(self) -> None:
        """Drop what the last call of `strongest_before` requested."""
        self._started = None

    def _start(self, request: int) -> None:
        if self._group is not None:
            shared = torch.tensor(request)
            work = torch.distributed.all_reduce(shared, ReduceOp.MAX, group=self._group, async_op=True)
            self._started = work, shared

    def _finish(self, otherwise: int) -> int:
        started, self._started = self._started, None
        if started is None:
            return otherwise
        work, shared = started
        work.wait()
        return int(shared)
