"""Checks before training that would otherwise fail after the first step or at the end."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import nn
from torch.optim import Optimizer

from alexnet_lab.callbacks.foreign import check_callbacks
from alexnet_lab.classifier import ImageClassifier, OptimizerFactory
from alexnet_lab.config.build import refusal
from alexnet_lab.config.memory import is_out_of_memory, remedies_when_full
from alexnet_lab.data.module import ImageDataModule
from alexnet_lab.errors import UserError
from alexnet_lab.metric_names import FIGURES
from alexnet_lab.models.two_towers import TwoTowers

OURS = ("alexnet_lab.", "lightning.")


def check_parts(
    settings: Mapping[str, Any],
    trainer: pl.Trainer,
    classifier: ImageClassifier,
    data: ImageDataModule,
    callbacks: Mapping[str, pl.Callback],
    parts: Mapping[str, object],
) -> None:
    """Refuse before training what would end it later: callbacks, folders, data, optimizer.

    Raises:
        UserError: one of them cannot.
    """
    strategy = trainer.strategy
    check_callbacks(callbacks, whole_network=not isinstance(strategy, TwoTowers))
    if isinstance(strategy, TwoTowers):
        strategy.check(classifier.net, bool(settings["compile"]))
    check_monitored(callbacks, trainer)
    check_folders(parts)
    if trainer.is_global_zero:
        check_data(data, ("fit", "test") if settings["test_on"] != "none" else ("fit",))
        if settings["test_on"] != "none":
            check_test(trainer, data)
    tried = try_step(classifier.optimizer_factory, settings["optimizer"]["_target_"], strategy.root_device)
    if isinstance(strategy, TwoTowers):
        strategy.check_optimizer(tried)


def try_step(optimizer: OptimizerFactory, target: str, device: torch.device) -> Optimizer:
    """Make one optimizer step with a dummy parameter on `device`: some settings are rejected only then.

    Returns the optimizer, with its state.

    Raises:
        UserError: the optimizer, built by `target`, rejects its settings, or computes the loss several times per step;
            or other processes use all of the memory.
    """
    with remedies_when_full(UserError, f"fewer processes that use {device}, or another device"):
        parameter = nn.Parameter(torch.zeros(2, 2, device=device))
        parameter.grad = torch.zeros_like(parameter)
        try:
            made = optimizer([("weight", parameter)])
            if isinstance(made, torch.optim.LBFGS):
                raise UserError(
                    f"optimizer: {target} computes the loss of a batch several times per step, which is not supported "
                    "here; choose another optimizer"
                )
            made.step(lambda: 0.0)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise refusal("optimizer", target, error) from error
    return made


def check_monitored(callbacks: Mapping[str, pl.Callback], trainer: pl.Trainer) -> None:
    """Refuse a callback that monitors a metric that does not exist.

    If there is a user's callback, nothing is refused: it may log its own metrics.

    Raises:
        UserError: lists the existing metrics.
    """
    if not all(type(callback).__module__.startswith(OURS) for callback in callbacks.values()):
        return
    splits = ("train/", "val/") if trainer.limit_val_batches else ("train/",)
    known = [metric for metric in FIGURES if metric.startswith(splits)]
    for name, callback in callbacks.items():
        monitored = getattr(callback, "monitor", None)
        # Lightning itself provides these two for a ModelCheckpoint.
        more = ("step", "epoch") if isinstance(callback, pl.callbacks.ModelCheckpoint) else ()
        if isinstance(monitored, str) and monitored not in (*known, *more):
            raise UserError(
                f"callbacks.{name}.monitor={monitored}: there is no such metric; choose from: {', '.join(known)}"
            )


def check_folders(parts: Mapping[str, object]) -> None:
    """Create the folders that callbacks and profilers write to.

    Raises:
        UserError: a folder cannot be created or written.
    """
    for name, part in parts.items():
        folder = getattr(part, "dirpath", None)
        if not isinstance(folder, str | Path):
            continue
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{name}.dirpath={folder} cannot be created: {error.strerror}") from error
        if not os.access(folder, os.W_OK):
            raise UserError(f"{name}.dirpath={folder} cannot be written")


def check_data(data: ImageDataModule, stages: Sequence[str]) -> None:
    """Open the images of these stages before the loggers begin.

    Raises:
        UserError: they do not fit into memory, or not the settings, such as the number of class weights.
    """
    try:
        for stage in stages:
            data.setup(stage)
    except MemoryError as error:
        raise UserError(f"out of memory: {error}") from error


def check_test(trainer: pl.Trainer, data: ImageDataModule) -> None:
    """Refuse a fraction of the test batches smaller than one batch; lightning would check it only after training.

    Raises:
        UserError: names the smallest fraction.
    """
    limit = trainer.limit_test_batches
    if isinstance(limit, float) and 0 < limit < 1 and limit * (batches := len(data.test_dataloader())) < 1:
        raise UserError(f"trainer.limit_test_batches={limit} is less than one batch; at least {1 / batches:.3g}")
