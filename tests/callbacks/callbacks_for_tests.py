"""Callbacks for test runs: faults in one hook, and a user's callback that changes the weights."""

from typing import Any

import lightning.pytorch as pl

from alexnet_lab.callbacks.checkpoints import Checkpoints


class At(pl.Callback):
    """Acts in the hook `hook` of training after `step` optimizer steps; see the subclasses."""

    def __init__(self, step: int, hook: str) -> None:
        self._step = step
        setattr(self, hook, self._look)

    def _look(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.state.fn == "fit" and trainer.global_step >= self._step:
            self.act(trainer)

    def act(self, trainer: pl.Trainer) -> None:
        raise NotImplementedError


class Crash(At):
    """Ends the process abruptly."""

    def act(self, trainer: pl.Trainer) -> None:
        raise RuntimeError("crash on purpose")


class AskToStop(At):
    """Somebody has asked the run to stop."""

    def act(self, trainer: pl.Trainer) -> None:
        checkpoints_of(trainer).stop_requested = lambda: True


class TimeIsUp(At):
    """Lets `trainer.max_time` pass."""

    def act(self, trainer: pl.Trainer) -> None:
        checkpoints_of(trainer)._deadline = 0.0


def checkpoints_of(trainer: pl.Trainer) -> Checkpoints:
    (found,) = (one for one in trainer.callbacks if isinstance(one, Checkpoints))  # type: ignore[attr-defined]
    return found


class Exchange(pl.Callback):
    """Replaces the weights in the validation hook `before`, and restores the trained ones in the hook `after`."""

    def __init__(self, before: str, after: str) -> None:
        setattr(self, before, self._exchange)
        setattr(self, after, self._restore)

    def _exchange(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        self._trained = {name: value.clone() for name, value in module.state_dict().items()}
        for value in module.state_dict().values():
            value.mul_(0.5)

    def _restore(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        module.load_state_dict(self._trained)
