"""Builds the trainer of a run from the configuration."""

import logging
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.strategies import DDPStrategy
from torch import nn

from alexnet_lab import distributed
from alexnet_lab.callbacks.checkpoint_io import AtomicCheckpointIO
from alexnet_lab.config.build import build
from alexnet_lab.config.by_device import few_images_per_gpu
from alexnet_lab.errors import UserError

ABOVE_HANG_SECONDS = 900.0

log = logging.getLogger(__name__)


class NoProfiler(PassThroughProfiler):
    """Lightning's default profiler, whose `profile` is called 120 times per step, without its cost."""

    _nothing = nullcontext()

    def profile(self, action_name: str) -> AbstractContextManager[Any]:  # type: ignore[override]
        return self._nothing


def make_trainer(
    settings: dict[str, Any],
    folder: Path,
    callbacks: list[pl.Callback],
    loggers: list[Logger],
    writer: AtomicCheckpointIO,
    hang_timeout: float | None,
) -> pl.Trainer:
    """Build the trainer; `writer` writes its checkpoints. `trainer.max_time` is handled elsewhere.

    Of what torch keeps for the whole process, an earlier run in this process leaves nothing.

    Ranks wait for each other longer than `hang_timeout` s, so that the watchdog reports where a rank hangs.

    Raises:
        UserError: see `build`.
    """
    # cuDNN times convolutions and chooses the fastest; deterministic=true or benchmark=false turns this off.
    torch.backends.cudnn.benchmark = True
    torch.use_deterministic_algorithms(False)  # lightning leaves it unchanged where trainer.deterministic is null
    trainer: pl.Trainer = build(
        {key: value for key, value in settings.items() if key != "max_time"},  # limits each start, not the whole run
        "trainer",
        pl.Trainer,
        callbacks=callbacks,
        logger=loggers,
        # Given, since Lightning would take variables of Slurm and of other launchers for a run of several ranks.
        plugins=[writer, TorchElasticEnvironment() if TorchElasticEnvironment.detect() else LightningEnvironment()],
        default_root_dir=folder,
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    if type(trainer.profiler) is PassThroughProfiler:  # type: ignore[attr-defined]
        trainer.profiler = NoProfiler()  # type: ignore[attr-defined]
    without_signal_handlers(trainer)
    # Before each batch, lightning would wait for rank 0 to send what those handlers received.
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
    if isinstance(trainer.strategy, DDPStrategy) and trainer.strategy.root_device.type == "cuda":
        # Gradients are parts of the buffers that the ranks exchange: one copy less of each, in time and memory.
        trainer.strategy._ddp_kwargs.setdefault("gradient_as_bucket_view", True)
    if isinstance(trainer.strategy, DDPStrategy) and hang_timeout:
        least = timedelta(seconds=hang_timeout + ABOVE_HANG_SECONDS)
        trainer.strategy._timeout = max(trainer.strategy._timeout or least, least)
    # With max_steps, lightning would take the last finished epoch of a continued run as unfinished, and skip an epoch.
    trainer.fit_loop._iteration_based_training = lambda: False  # type: ignore[method-assign]
    return trainer


def without_signal_handlers(trainer: pl.Trainer) -> pl.Trainer:
    """`trainer`, which from now on leaves the process's signal handlers as they are.

    Lightning's communicate with other ranks inside the handler, which can hang, and end the process with status 0.
    """
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    return trainer


def check_ranks(trainer: pl.Trainer) -> None:
    """Raises UserError if the number of started processes differs from the trainer's."""
    started = distributed.ranks()
    if trainer.world_size != started:
        raise UserError(
            f"{distributed.processes(started)} {'was' if started == 1 else 'were'} started, but the trainer needs "
            f"{trainer.world_size} (trainer.devices x trainer.num_nodes); use trainer=ddp or ddp_cpu for several, and "
            "torchrun or srun for several nodes"
        )


def log_hints(trainer: pl.Trainer, net: nn.Module, batch_size: int) -> None:
    """Log a hint if the split of a batch is slow, since each GPU gets few images, or changes the training."""
    _, replicas = distributed.replica(trainer)
    normalised = any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in net.modules())
    if normalised and trainer.accumulate_grad_batches > 1:
        log.info("batch normalisation: its statistics are those of each micro-batch, not of the whole batch")
    if hint := few_images_per_gpu(batch_size, replicas, trainer.strategy.root_device.type):
        log.info("%s", hint)
