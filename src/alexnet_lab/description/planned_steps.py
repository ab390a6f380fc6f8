"""The optimizer steps of a run before it begins, computed by the run's own trainer, optimizer and schedule."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loops.utilities import _parse_loop_limits
from lightning.pytorch.plugins.environments import LightningEnvironment
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from alexnet_lab.classifier import ImageClassifier
from alexnet_lab.config.build import build
from alexnet_lab.data.module import ImageDataModule
from alexnet_lab.data.sampler import EpochOrder, GlobalBatchSampler
from alexnet_lab.description.published import published
from alexnet_lab.errors import UserError
from alexnet_lab.optim.schedules import WatchesValidation, is_scheduled, logged_lr, steps_of
from alexnet_lab.runs.found_settings import with_found
from alexnet_lab.training import make_classifier

ONE_CPU = {
    "accelerator": "cpu",
    "devices": 1,
    "num_nodes": 1,
    "strategy": "auto",
    "precision": "32-true",
    "profiler": None,
    "logger": False,
}
"""The number of steps does not depend on the devices, since the global batch is shared by them."""


@dataclass(frozen=True)
class Steps:
    """A run's learning rates, by optimizer step."""

    images: int
    images_note: str
    """Where the number is from, if not from the images."""
    batch_size: int
    per_epoch: int
    total: int
    columns: dict[str, list[float]]
    """`lr` as it is logged, `lr of NAMES` of other groups of parameters, and the momentum if it changes; [steps].

    With a `rule`, the first step, then the levels that may follow, as far as the schedule knows them.
    """
    rule: str | None
    """How the schedule follows the validation error, which is not known before; None if it does not."""


def planned_steps(settings: dict[str, Any]) -> Steps:
    """The steps of a run of `settings`. Images are counted, not read.

    Raises:
        UserError: something in the settings is wrong, or there are no images.
    """
    data: ImageDataModule = build(settings["data"], "data", ImageDataModule)
    known = published(settings)
    if known:
        data.dataset = known  # type: ignore[assignment]
    settings = with_found({**settings, "trainer": {**settings["trainer"], **ONE_CPU}}, data)
    with torch.device("meta"):
        classifier, _ = make_classifier(settings, data, is_new=False)
    # Of Fashion-MNIST, the number is known without the files.
    images: int = getattr(data.dataset, "training_images", lambda: len(data.dataset.split("train").rows))()
    with _quiet():
        trainer = _trainer(settings["trainer"])
        batches = GlobalBatchSampler(EpochOrder(images), data.batch_size, accumulate=trainer.accumulate_grad_batches)
        optimizer, scheduler = _attached(trainer, classifier, len(batches))
    per_epoch, total = steps_of(trainer)
    rule = getattr(scheduler, "rule", str)() if isinstance(scheduler, WatchesValidation) else None
    columns = _columns(optimizer, scheduler, total)
    return Steps(images, known.note if known else "", data.batch_size, per_epoch, total, columns, rule)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without lightning's remarks about a trainer that will not train."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _trainer(settings: dict[str, Any]) -> pl.Trainer:
    trainer: pl.Trainer = build(
        {key: value for key, value in settings.items() if key != "max_time"},
        "trainer",
        pl.Trainer,
        plugins=[LightningEnvironment()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    return trainer


class _Counted:
    """Stands for the loader of an epoch, of which only the length is asked."""

    def __init__(self, micro_batches: int) -> None:
        self._micro_batches = micro_batches

    def __len__(self) -> int:
        return self._micro_batches

    def __iter__(self) -> Iterator[None]:
        return iter(())


def _attached(trainer: pl.Trainer, classifier: ImageClassifier, micro_batches: int) -> tuple[Optimizer, LRScheduler]:
    """The optimizer and the schedule that the classifier makes when it is trained by `trainer`."""
    loop = trainer.fit_loop
    limits = _parse_loop_limits(loop.min_steps, loop.max_steps, loop.min_epochs, loop.max_epochs, trainer)
    loop.min_epochs, loop.max_epochs = limits  # as `fit` does
    trainer.strategy.connect(classifier)
    trainer._data_connector.attach_data(classifier, train_dataloaders=_Counted(micro_batches))
    try:
        made: Any = classifier.configure_optimizers()
    except (MisconfigurationException, ValueError) as error:  # of lightning, about numbers of batches
        raise error if isinstance(error, UserError) else UserError(f"trainer: {' '.join(str(error).split())}") from None
    return made["optimizer"], made["lr_scheduler"]["scheduler"]


def _columns(optimizer: Optimizer, scheduler: LRScheduler, total: int) -> dict[str, list[float]]:
    groups = optimizer.param_groups
    logged: list[float] = []
    momentum: list[float] = []
    rates: list[list[float]] = [[] for _ in groups]
    for _ in _rows(optimizer, scheduler, total):
        logged.append(logged_lr(groups[0]))
        momentum.append(groups[0].get("momentum", groups[0].get("betas", (0.0,))[0]))
        for group, values in zip(groups, rates, strict=True):
            values.append(group["lr"])
    columns = {"lr": logged}
    for group, values in zip(groups, rates, strict=True):
        if values != logged:
            columns[f"lr of {_names(group)}"] = values
    if len(set(momentum)) > 1:
        columns["momentum"] = momentum
    return columns


def _rows(optimizer: Optimizer, scheduler: LRScheduler, total: int) -> Iterator[None]:
    """Set `optimizer` to each step; with a schedule that follows the validation, to the start and the levels."""
    if isinstance(scheduler, WatchesValidation):
        levels = getattr(scheduler, "levels", list)() or [[group["lr"] for group in optimizer.param_groups]]
        for rates in levels:
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
            yield
        return
    # Nothing has a gradient: a step would change nothing, and takes ten times as long as the schedule's.
    optimizer._opt_called = True  # type: ignore[attr-defined]
    for _ in range(total):
        yield
        scheduler.step()


def _names(group: dict[str, Any]) -> str:
    names = group.get("param_names") or []
    if not is_scheduled(group) or (len(names) > 2 and all(name.endswith("bias") for name in names)):
        return "biases"
    return f"{names[0]} and {len(names) - 1} more" if len(names) > 2 else " and ".join(names) or "other parameters"
