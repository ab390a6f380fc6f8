"""A run's trainer, as the configuration describes it and as a run needs it."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.loggers import Logger

from alexnet_lab import distributed
from alexnet_lab.callbacks.checkpoint_io import AtomicCheckpointIO
from alexnet_lab.config.build import build
from alexnet_lab.errors import UserError


def make_trainer(
    settings: dict[str, Any],
    folder: Path,
    callbacks: list[pl.Callback],
    loggers: list[Logger],
    writer: AtomicCheckpointIO,
) -> pl.Trainer:
    """The trainer of the settings, which `writer` writes the checkpoints for; `trainer.max_time` is left to us.

    Raises:
        UserError: as of `build`.
    """
    # Convolutions on a GPU are timed and the fastest chosen; deterministic=true or benchmark=false turns that off.
    torch.backends.cudnn.benchmark = True
    trainer: pl.Trainer = build(
        {key: value for key, value in settings.items() if key != "max_time"},  # ours: of each start alone
        "trainer",
        pl.Trainer,
        callbacks=callbacks,
        logger=loggers,
        plugins=[writer],
        default_root_dir=folder,
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    # Its handlers talk to the other ranks from within the signal, which hangs ranks that are elsewhere, and end the
    # process with status 0. Ours begin with the training; before that a signal ends a rank, which has nothing to save.
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    # With max_steps lightning takes every epoch that it continues after for an unfinished one, and skips the next.
    trainer.fit_loop._iteration_based_training = lambda: False  # type: ignore[method-assign]
    return trainer


def check_ranks(trainer: pl.Trainer) -> None:
    """Raises UserError where other processes were started than the trainer is made for."""
    started = distributed.ranks()
    if trainer.world_size != started:
        raise UserError(
            f"{started} process(es) were started for a trainer of {trainer.world_size} (trainer.devices x "
            "trainer.num_nodes); several take trainer=ddp or ddp_cpu, several nodes take torchrun or srun"
        )
