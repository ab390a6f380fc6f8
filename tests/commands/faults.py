"""Callbacks that the tests put into runs: ranks that fail or are stopped, and ranks that tell of themselves."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl


class Fault(pl.Callback):
    """Rank 1 fails after its first batch."""

    def __init__(self, kind: Literal["raises", "is_killed", "stops", "hangs"]) -> None:
        self._kind = kind

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_rank != 1:
            return
        if self._kind == "raises":
            raise ZeroDivisionError("on purpose")
        if self._kind == "hangs":
            time.sleep(600)
        os.kill(os.getpid(), signal.SIGKILL if self._kind == "is_killed" else signal.SIGSTOP)


class Late(pl.Callback):
    """Rank 0 is made later than the others."""

    def __init__(self) -> None:
        if os.environ["RANK"] == "0":
            time.sleep(3)


class Asked(pl.Callback):
    """The first time that training begins, every rank gets SIGTERM, before what answers it has begun."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step == 0:
            os.kill(os.getppid(), signal.SIGTERM)  # to the supervisor, which passes it on
            time.sleep(60)


class Tell(pl.Callback):
    """Each rank writes its learning rate and the sum of its weights to `rank<R>.json` in the run's folder."""

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        weights = sum(float(values.detach().double().sum()) for values in pl_module.parameters())
        path = Path(trainer.default_root_dir, f"rank{trainer.global_rank}.json")
        path.write_text(json.dumps({"lr": rate, "weights": weights}))
