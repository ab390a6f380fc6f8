"""Top-1, top-5 and loss of a checkpoint on its run's data, or of the averaged predictions of several checkpoints."""

import json
import logging
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import lightning.pytorch as pl
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from alexnet_lab import files
from alexnet_lab.callbacks.outputs import Outputs
from alexnet_lab.callbacks.progress import Progress
from alexnet_lab.classifier import ImageClassifier
from alexnet_lab.config.build import build
from alexnet_lab.config.by_device import use_recorded
from alexnet_lab.config.memory import remedies_when_full
from alexnet_lab.config.output_file import check_output
from alexnet_lab.config.schema import check_trainer
from alexnet_lab.config.trainer import without_signal_handlers
from alexnet_lab.config.values import check_values
from alexnet_lab.data.module import ImageDataModule
from alexnet_lab.errors import UserError
from alexnet_lab.launch import gpus
from alexnet_lab.launch.rank import NOISE
from alexnet_lab.metrics import figures_of_mean
from alexnet_lab.runs.checkpoint import Checkpoint, Modules, read_checkpoint
from alexnet_lab.runs.class_check import check_classes
from alexnet_lab.runs.recipe import not_comparable, published_text

Split = Literal["test", "val"]
Protocol = Literal["center", "ten_crop"]
SPLITS, PROTOCOLS = get_args(Split), get_args(Protocol)
KINDS = {"checkpoint": str | list[str], "split": Split, "protocol": Protocol, "out": str | None, "modules": Modules}
"""The types of the command's own options."""
TEN = 10  # views per image in `ten_crop`


@dataclass(frozen=True)
class Measured:
    """The metrics of one checkpoint, `loss`, `top1` and `top5`, and the number of images."""

    path: Path
    checkpoint: Checkpoint
    figures: dict[str, float]
    images: int
    outputs: Outputs


def evaluate(config: DictConfig) -> dict[str, Any]:
    """Evaluate the checkpoints of `config`, print the metrics and return `SPLIT/loss`, `SPLIT/top1`, `SPLIT/top5`.

    With `protocol=center`, the metrics are bit-identical to those that the run itself reports for the same weights.
    With `ten_crop` (paper, section 4.1), the ten softmax outputs of an image are averaged: the classes are ranked by
    mean probability, and the loss is the negative logarithm of the mean probability of the true class. With several
    checkpoints, the outputs of the networks are averaged in the same way, as the paper does for 5 and 7 CNNs
    (section 6); each network uses its own preprocessing. Every image counts once.

    Raises:
        UserError: not an AlexNet Lab checkpoint, a wrong option, images without ten crops, or checkpoints of different
            data.
    """
    options: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    paths = _check_options(options)
    read = _read_all(paths, options["modules"])
    members = [_measure(path, one, options) for path, one in zip(paths, read, strict=True)]
    figures = members[0].figures if len(members) == 1 else _averaged(members)
    result = {f"{options['split']}/{name}": value for name, value in figures.items()}
    _print(members, options, result)
    if options["out"]:
        files.write(Path(options["out"]), json.dumps(_about(members, options) | result, indent=2) + "\n")
        files.print_written(Path(options["out"]))
    return result


def _about(members: Sequence[Measured], options: dict[str, Any]) -> dict[str, Any]:
    """What was measured and how, for the file; with several networks, also the metrics of each."""
    about = {"checkpoint": str(members[0].path), "split": options["split"], "protocol": options["protocol"]}
    about["images"] = members[0].images
    if len(members) == 1:
        return about
    read = [(member.checkpoint, member.figures) for member in members]
    networks = [{"run": one.settings["run"], "network": _network(one), **figures} for one, figures in read]
    whole = options["trainer"].get(f"limit_{options['split']}_batches") is None
    facts = {"data": read[0][0].settings["data"]["name"], "networks": networks, "whole_split": whole}
    return about | {"checkpoint": [str(member.path) for member in members], **facts}


def _check_options(options: dict[str, Any]) -> list[Path]:
    """Check the options; return the checkpoints."""
    given = options["checkpoint"]
    paths = given if isinstance(given, list) else [given]
    if not paths or not all(isinstance(path, str) for path in paths):
        raise UserError("name a checkpoint: checkpoint=PATH, such as logs/train/runs/NAME/checkpoints/best.ckpt")
    for name, choices in (("split", SPLITS), ("protocol", PROTOCOLS)):
        if options[name] not in choices:
            raise UserError(f"{name}={options[name]}: there is no such {name}; choose from: {', '.join(choices)}")
    if "_target_" not in options["trainer"]:
        raise UserError("choose a trainer: trainer=default|cpu|gpu")
    if options["trainer"].get(limit := f"limit_{options['split']}_batches") == 0:
        raise UserError(f"trainer.{limit}=0 leaves no image to evaluate")
    check_output("out", options["out"], [".json"])
    check_values(options, KINDS)
    return [Path(path) for path in paths]


def _read_all(paths: Sequence[Path], modules: Modules) -> list[Checkpoint]:
    """Read all checkpoints before the evaluation, which may take an hour."""
    read = [read_checkpoint(path, modules) for path in paths]
    names = [checkpoint.settings["data"]["name"] for checkpoint in read]
    for path, name in zip(paths, names, strict=True):
        if name != names[0]:
            raise UserError(f"{paths[0]} is from {names[0]}, {path} from {name}; averaging requires the same images")
    return read


def _measure(path: Path, checkpoint: Checkpoint, options: dict[str, Any]) -> Measured:
    data = _data(checkpoint, options)
    outputs = Outputs(keep=isinstance(options["checkpoint"], list))
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
    return Measured(path, checkpoint, figures, images, outputs)


def _averaged(members: Sequence[Measured]) -> dict[str, float]:
    first = members[0]
    for member in members[1:]:
        if not first.outputs.has_the_labels_of(member.outputs):
            name = first.checkpoint.settings["data"]["name"]
            raise UserError(
                f"{first.path} and {member.path} were evaluated on different images of {name}; averaging requires the "
                "same images"
            )
    return figures_of_mean([member.outputs.logits for member in members], first.outputs.labels)


def _data(checkpoint: Checkpoint, options: dict[str, Any]) -> ImageDataModule:
    """The run's data with the views of the protocol. A step has as many views as the run's steps have images."""
    changes = dict(options["data"])
    if options["protocol"] == "ten_crop" and changes["eval_batch_size"] is None:
        changes["eval_batch_size"] = max(1, checkpoint.settings["data"]["eval_batch_size"] // TEN)
    data = checkpoint.data(changes)
    check_classes(checkpoint, data)
    data.evaluate_by(options["protocol"])
    if options["protocol"] == "ten_crop":
        _check_room(data)
    return data


def _check_room(data: ImageDataModule) -> None:
    assert data.augmentation is not None
    crop, stored = data.augmentation.crop_size, data.dataset.split("val").images.shape[2]
    if crop >= stored:
        raise UserError(
            f"protocol=ten_crop: {data.spec.name} stores only {crop} x {crop} pixels of each image, so there are no "
            "other crops; choose protocol=center"
        )


def _trainer(options: dict[str, Any], checkpoint: Checkpoint, outputs: Outputs) -> pl.Trainer:
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # hides lines about devices and tips
    for pattern in NOISE:
        warnings.filterwarnings("ignore", message=pattern)
    check_trainer(options)
    gpus.check(options.get("accelerator"), gpus.look())
    trainer: pl.Trainer = build(
        use_recorded(options, checkpoint.settings, "trainer.precision", "trainer=cpu"),
        "trainer",
        pl.Trainer,
        callbacks=[Progress(), outputs],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    if trainer.world_size > 1:
        raise UserError(f"evaluation takes one device, got {trainer.world_size}; choose trainer=default|cpu|gpu")
    return without_signal_handlers(trainer)


def _never(*_: Any) -> Any:
    raise AssertionError("evaluation does not train")


def _print(members: Sequence[Measured], options: dict[str, Any], result: dict[str, float]) -> None:
    first, console = members[0], Console()
    title = f"checkpoint of run {first.checkpoint.settings['run']}"
    if len(members) > 1:
        title = f"average of {len(members)} networks"
        console.print(_single_networks(members))
    table = Table(title=title, show_header=False, title_justify="left")
    for label, text in _rows(first, len(members), options, result):
        table.add_row(label, text)
    console.print(table)
    for member in members:
        console.print(f"checkpoint: {member.path}", markup=False, highlight=False, soft_wrap=True)


def _single_networks(members: Sequence[Measured]) -> Table:
    table = Table("run", "network", "top1", "top5", "loss", title="single networks", title_justify="left")
    for member in members:
        figures = [f"{member.figures[name]:.4f}" for name in ("top1", "top5", "loss")]
        table.add_row(str(member.checkpoint.settings["run"]), _network(member.checkpoint), *figures)
    return table


def _rows(
    first: Measured, networks: int, options: dict[str, Any], result: dict[str, float]
) -> Iterable[tuple[str, str]]:
    if networks == 1:
        yield "network", _network(first.checkpoint)
        yield "trained for", f"{first.checkpoint.step:,} steps"
    yield "data", f"{first.checkpoint.settings['data']['name']}, {options['split']} split, {first.images:,} images"
    yield "protocol", options["protocol"]
    for name in ("top1", "top5", "loss"):
        metric = f"{options['split']}/{name}"
        published = _published(first.checkpoint.settings, options, name) if networks == 1 else ""
        yield metric, f"{result[metric]:.4f}{published}"


def _published(settings: dict[str, Any], options: dict[str, Any], name: str) -> str:
    """The published value of this metric for the same views of the test images; empty if there is none."""
    metric = {"center": f"test/{name}", "ten_crop": f"ten_crop/{name}"}[options["protocol"]]
    figure = ((settings.get("recipe") or {}).get("published") or {}).get(metric)
    if figure is None or options["split"] != "test":
        return ""
    different = " ".join(not_comparable(settings))
    return f"  published: {published_text(figure)}" + (f", not comparable with {different}" if different else "")


def _network(checkpoint: Checkpoint) -> str:
    return str(checkpoint.settings["model"]["_target_"]).rpartition(".")[2]
