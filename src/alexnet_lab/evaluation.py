"""The evaluation of checkpoints on one rank: build, measure, gather, average. Read it top to bottom."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from torch import Tensor

from alexnet_lab import distributed
from alexnet_lab.callbacks.outputs import Keep, Outputs
from alexnet_lab.callbacks.progress import Progress
from alexnet_lab.classifier import ImageClassifier
from alexnet_lab.config.build import build
from alexnet_lab.config.by_device import use_recorded
from alexnet_lab.config.memory import remedies_when_full
from alexnet_lab.config.schema import check_trainer
from alexnet_lab.config.trainer import check_ranks, without_signal_handlers
from alexnet_lab.data.module import ImageDataModule
from alexnet_lab.data.spec import different_class
from alexnet_lab.errors import UserError
from alexnet_lab.metrics import by_image, figures_of_mean, mean_prediction
from alexnet_lab.rows import Rows, rounded
from alexnet_lab.runs.checkpoint import Checkpoint, Modules, read_checkpoint
from alexnet_lab.runs.class_check import check_classes

TEN = 10  # views per image in `ten_crop`
AT_ONCE = 4096
"""Images of an average whose rows are computed together: the memory for 1,000 classes stays small."""


@dataclass(frozen=True)
class Measured:
    """The metrics of one checkpoint, `loss`, `top1` and `top5`, and the number of images."""

    reference: str
    checkpoint: Checkpoint
    data: ImageDataModule
    figures: dict[str, float]
    images: int
    kept: dict[str, Tensor]
    """What `Outputs` has kept of each image; empty if nothing was asked for, and on ranks other than 0."""


@dataclass(frozen=True)
class Evaluation:
    """The metrics of one checkpoint, or those of the averaged predictions of several."""

    members: Sequence[Measured]
    figures: dict[str, float]
    rows: Rows | None
    """None if they were not asked for, and on ranks other than 0."""


def read_all(references: Sequence[str], modules: Modules, option: str) -> list[Checkpoint]:
    """Read the checkpoints of an average, named by `option`, before the evaluation, which may take an hour.

    Raises:
        UserError: one cannot be read, or they are from different datasets.
    """
    read = [read_checkpoint(reference, modules, option) for reference in references]
    names = [checkpoint.settings["data"].get("name") for checkpoint in read]
    for reference, name in zip(references, names, strict=True):
        if name != names[0]:
            raise UserError(
                f"{references[0]} is from {names[0]}, {reference} from {name}; averaging requires the same images"
            )
    return read


def different_classes(one: Checkpoint, other: Checkpoint) -> str:
    """The first class that differs; '' if there is none, or if an old checkpoint does not record its classes."""
    if one.preprocessing is None or other.preprocessing is None:
        return ""
    return different_class(one.preprocessing.classes, other.preprocessing.classes) or ""


def evaluate_all(
    references: Sequence[str], checkpoints: Sequence[Checkpoint], options: dict[str, Any], with_rows: bool
) -> Evaluation:
    """Evaluate one checkpoint, or the average of several, each with its own preprocessing.

    Every rank calls this; the metrics are those of all ranks, on rank 0.

    Raises:
        UserError: a wrong option, images without ten crops, or checkpoints of different data.
    """
    several = len(references) > 1
    keep: Keep | None = _logits if several else by_image if with_rows else None
    members = [_measure(*pair, options, keep) for pair in zip(references, checkpoints, strict=True)]
    first = members[0]
    if not first.kept:
        return Evaluation(members, first.figures, None)
    if not several:
        return Evaluation(members, first.figures, _rows(first, first.kept, options))
    _check_same_images(members)
    mean, labels = mean_prediction([member.kept["logits"] for member in members]), first.kept["labels"]
    figures = figures_of_mean(mean, labels)
    if not with_rows:
        return Evaluation(members, figures, None)
    parts = [by_image(*part) for part in zip(mean.split(AT_ONCE), labels.split(AT_ONCE), strict=True)]
    known = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return Evaluation(members, figures, _rows(first, {**first.kept, **known}, options))


def _logits(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    return {"logits": logits.float()}


def _measure(reference: str, checkpoint: Checkpoint, options: dict[str, Any], keep: Keep | None) -> Measured:
    data = _data(checkpoint, options)
    outputs = Outputs(keep)
    trainer = _trainer(options["trainer"], checkpoint, outputs)
    classifier = ImageClassifier(checkpoint.network(trainer.precision_plugin), _never, _never, seed=0)
    measure = trainer.test if options["split"] == "test" else trainer.validate
    try:
        with remedies_when_full(UserError, "a smaller data.eval_batch_size"):
            measure(classifier, data, verbose=False)
    except MisconfigurationException as error:
        raise UserError(f"trainer: {error}") from error
    # Lightning rounds metrics to 32 bits.
    figures = classifier.eval_metrics.compute()
    images = int(figures.pop("count"))
    return Measured(reference, checkpoint, data, figures, images, outputs.kept)


def _rows(measured: Measured, kept: dict[str, Tensor], options: dict[str, Any]) -> Rows:
    if wrong := int(kept["probabilities"].isnan().any(1).sum()):
        raise UserError(
            f"{measured.reference}: the outputs of the network are not numbers (NaN) for {wrong:,} of "
            f"{len(kept['labels']):,} images, so there are no probabilities for rows or a comparison"
        )
    samples, paths = kept["samples"].numpy(), measured.data.dataset.split(options["split"]).paths()
    trained = measured.checkpoint.preprocessing
    return Rows(
        samples=samples,
        paths=[paths[sample] for sample in samples.tolist()] if paths else None,
        labels=kept["labels"].numpy(),
        best=kept["best"].numpy(),
        probabilities=rounded(kept["probabilities"].numpy()),
        losses=rounded(kept["losses"].numpy()),
        classes=dict(enumerate(trained.classes if trained else measured.data.spec.classes)),
    )


def _check_same_images(members: Sequence[Measured]) -> None:
    first = members[0]
    for member in members[1:]:
        mine, theirs = first.kept, member.kept
        if not (torch.equal(mine["labels"], theirs["labels"]) and mine["logits"].shape == theirs["logits"].shape):
            name = first.checkpoint.settings["data"].get("name", "the dataset")
            both = f"{first.reference} and {member.reference}"
            raise UserError(f"{both} were evaluated on different images of {name}; averaging requires the same images")


def _data(checkpoint: Checkpoint, options: dict[str, Any]) -> ImageDataModule:
    """The run's data with the views of the protocol. A step has as many views as the run's steps have images."""
    changes = dict(options["data"])
    if options["protocol"] == "ten_crop" and changes["eval_batch_size"] is None:
        changes["eval_batch_size"] = max(1, checkpoint.settings["data"].get("eval_batch_size", TEN) // TEN)
    data = checkpoint.data(changes)
    check_classes(checkpoint, data)
    data.evaluate_by(options["protocol"])
    if options["protocol"] == "ten_crop":
        _check_room(data)
    return data


def _check_room(data: ImageDataModule) -> None:
    assert data.crop_size is not None
    crop, stored = data.crop_size, data.dataset.split("val").images.shape[2]
    if crop >= stored:
        raise UserError(
            f"protocol=ten_crop: {data.spec.name} stores only {crop} x {crop} pixels of each image, so there are no "
            "other crops; choose protocol=center"
        )


def _trainer(options: dict[str, Any], checkpoint: Checkpoint, outputs: Outputs) -> pl.Trainer:
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)  # hides lines about devices, ranks and tips
    check_trainer(options)
    # Given, since Lightning would take variables of Slurm and of other launchers for several ranks.
    ranks = TorchElasticEnvironment() if TorchElasticEnvironment.detect() else LightningEnvironment()
    ranks.teardown = lambda: None  # type: ignore[method-assign]  # Lightning's forgets the number of ranks
    trainer: pl.Trainer = build(
        use_recorded(options, checkpoint.settings, "trainer.precision", "trainer=cpu"),
        "trainer",
        pl.Trainer,
        callbacks=[Progress(), outputs],
        plugins=[ranks],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    check_ranks(trainer)
    _, replicas = distributed.replica(trainer)
    if trainer.world_size != replicas:
        raise UserError(
            "this strategy cuts the network into parts, evaluation needs all of it on each device; choose "
            "trainer=default|cpu|gpu, or ddp|ddp_cpu for several"
        )
    return without_signal_handlers(trainer)


def _never(*_: Any) -> Any:
    raise AssertionError("evaluation does not train")
