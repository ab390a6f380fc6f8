"""Callbacks that the tests put into runs: ranks and files that fail, and ranks that report about themselves."""

import faulthandler
import json
import os
import resource
import signal
import threading
import time
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch

from alexnet_lab.errors import UserError


class Fault(pl.Callback):
    """A rank fails after its first batch of an epoch."""

    def __init__(
        self, kind: Literal["raises", "exits", "is_killed", "crashes", "stops", "hangs"], rank: int = 1, epoch: int = 0
    ) -> None:
        self._kind, self._rank, self._epoch = kind, rank, epoch

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if (trainer.global_rank, trainer.current_epoch) != (self._rank, self._epoch):
            return
        if self._kind == "raises":
            raise ZeroDivisionError("on purpose")
        if self._kind == "exits":
            raise SystemExit(0)
        if self._kind == "hangs":
            time.sleep(600)
        if self._kind == "crashes":
            faulthandler._sigsegv()  # type: ignore[attr-defined]
        os.kill(os.getpid(), signal.SIGKILL if self._kind == "is_killed" else signal.SIGSTOP)


class Refuses(pl.Callback):
    """A rank meets a user's error before training begins."""

    def __init__(self, rank: int) -> None:
        self._rank = rank

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if trainer.global_rank == self._rank:
            raise UserError(f"rank {self._rank} has no data")


class Loses(pl.Callback):
    """Files vanish, or lose their content, when an epoch has ended."""

    def __init__(self, paths: list[str], how: Literal["vanish", "are_cut", "are_zeroed"], epoch: int = 0) -> None:
        self._paths, self._how, self._epoch = [Path(path) for path in paths], how, epoch

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero or trainer.current_epoch != self._epoch:
            return
        for path in self._paths:
            if self._how == "vanish":
                path.unlink()
            elif self._how == "are_cut":
                os.truncate(path, path.stat().st_size - 60)
            else:
                path.write_bytes(bytes(path.stat().st_size))


class FullDisk(pl.Callback):
    """After the first epoch, rank 0 can write no file of more than `most_bytes`."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero and trainer.current_epoch == 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self._most_bytes, resource.RLIM_INFINITY))


class SlowDisk(pl.Callback):
    """Checkpoints are written in the background. From epoch `epoch` on, flushing or writing one takes `seconds`."""

    def __init__(self, what: Literal["flush", "write"], seconds: float, epoch: int = 0) -> None:
        self._what, self._seconds, self._epoch = what, seconds, epoch

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        trainer.strategy.checkpoint_io.also_on_cpu = True  # type: ignore[attr-defined]

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch != self._epoch:
            return
        trainer.strategy.checkpoint_io.wait()  # type: ignore[attr-defined]
        save, sync = torch.save, os.fsync

        def save_slowly(content: Any, file: Any) -> None:
            for _ in range(20):
                file.write(b"")
                time.sleep(self._seconds / 20)
            save(content, file)

        def sync_slowly(descriptor: int) -> None:
            if threading.current_thread().name == "writer":
                time.sleep(self._seconds)
            sync(descriptor)

        if self._what == "write":
            torch.save = save_slowly
        else:
            os.fsync = sync_slowly


class Late(pl.Callback):
    """Rank 0 is made later than the others."""

    def __init__(self) -> None:
        if os.environ.get("RANK") == "0":
            time.sleep(3)


class Asked(pl.Callback):
    """The first time that training begins, the run gets SIGTERM."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step == 0:
            os.kill(os.getppid() if trainer.world_size > 1 else os.getpid(), signal.SIGTERM)


class Swallows(pl.Callback):
    """Before training, a library makes another error of a request to stop."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        except BaseException as error:
            raise RecursionError("half imported") from error


class Tell(pl.Callback):
    """Each rank writes its learning rate and the sum of its weights to `rank<R>.json` in the run's folder."""

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        weights = sum(float(values.detach().double().sum()) for values in pl_module.parameters())
        path = Path(trainer.default_root_dir, f"rank{trainer.global_rank}.json")
        path.write_text(json.dumps({"lr": rate, "weights": weights}))


class Breaks(pl.Callback):
    """`training_step` begins with a `breakpoint()`."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        step: Any = pl_module.training_step

        def training_step(*arguments: Any) -> Any:
            breakpoint()
            return step(*arguments)

        pl_module.training_step = training_step  # type: ignore[method-assign]


class Signals(pl.Callback):
    """The process that runs the training, or starts its ranks, gets a signal once: in a hook, or as W&B's run ends."""

    def __init__(self, number: int, hook: str) -> None:
        self._number, self._done = number, False
        if hook == "wandb_finish":
            import wandb

            finish = wandb.sdk.wandb_run.Run.finish

            def finish_later(run: Any, *arguments: Any, **options: Any) -> None:
                self._send()
                finish(run, *arguments, **options)

            wandb.sdk.wandb_run.Run.finish = finish_later  # type: ignore[method-assign]
        else:
            setattr(self, hook, self._send)

    def _send(self, *_: Any, **__: Any) -> None:
        if os.environ.get("RANK", "0") == "0" and not self._done:
            self._done = True
            os.kill(os.getppid() if "RANK" in os.environ else os.getpid(), self._number)
            time.sleep(0.2)  # on the way through the process that starts the ranks


class Collectives(pl.Callback):
    """Each rank writes the collective operations of each training batch, until the next one, to `rank<R>.json`."""

    NAMES = ("all_gather", "all_gather_object", "all_reduce", "barrier", "broadcast", "broadcast_object_list", "reduce")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._batches: list[list[str]] = []
        for name in self.NAMES:
            self._count(name, getattr(torch.distributed, name))

    def _count(self, name: str, operation: Any) -> None:
        def counted(*arguments: Any, **options: Any) -> Any:
            if self._batches:
                self._batches[-1].append(f"{name}, not waited for" if options.get("async_op") else name)
            return operation(*arguments, **options)

        setattr(torch.distributed, name, counted)

    def on_train_batch_start(self, *_: Any) -> None:
        self._batches.append([])

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        Path(trainer.default_root_dir, f"rank{trainer.global_rank}.json").write_text(json.dumps(self._batches))
