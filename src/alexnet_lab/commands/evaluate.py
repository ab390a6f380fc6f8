"""Top-1, top-5 and loss of a checkpoint on the data of its run."""

import json
import logging
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from alexnet_lab.callbacks.progress import Progress
from alexnet_lab.classifier import ImageClassifier
from alexnet_lab.commands.build import build
from alexnet_lab.commands.rank import NOISE
from alexnet_lab.commands.restore import Restored, read_checkpoint, restored_data, restored_network
from alexnet_lab.data.module import ImageDataModule
from alexnet_lab.errors import UserError

SPLITS = ("test", "val")
PROTOCOLS = ("center", "ten_crop")
TEN = 10
"""Views of an image in `ten_crop`."""


def evaluate(config: DictConfig) -> dict[str, Any]:
    """Measure what `conf/evaluate.yaml` describes, print it, and return `SPLIT/loss`, `SPLIT/top1`, `SPLIT/top5`.

    With `protocol=center` the figures are those that the run itself reports for the same weights, to the last bit.
    With `ten_crop` (paper, section 4.1) an image's ten softmax outputs are averaged: the classes are ranked by the mean
    probability, and the loss is minus the logarithm of that of the right class. Every image counts once.

    Raises:
        UserError: the checkpoint is none of ours, an option is wrong, or the images have no ten crops.
    """
    options: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    _check_options(options)
    path = Path(options["checkpoint"])
    restored = read_checkpoint(path)
    data = _data(restored, options)
    classifier = ImageClassifier(restored_network(restored), _never, _never, seed=0)
    trainer = _trainer(options["trainer"], restored)
    measure = trainer.test if options["split"] == "test" else trainer.validate
    measure(classifier, data, verbose=False)
    # Lightning's own figures are rounded to 32 bits.
    figures = classifier.eval_metrics.compute()
    images = int(figures.pop("count"))
    result = {f"{options['split']}/{name}": value for name, value in figures.items()}
    _print(path, restored, options, images, result)
    if options["out"]:
        about = {"checkpoint": str(path), "split": options["split"], "protocol": options["protocol"], "images": images}
        Path(options["out"]).write_text(json.dumps({**about, **result}, indent=2) + "\n")
    return result


def _check_options(options: dict[str, Any]) -> None:
    if not isinstance(options["checkpoint"], str):
        raise UserError("which one? checkpoint=PATH, like checkpoint=logs/train/runs/NAME/checkpoints/best.ckpt")
    for name, choices in (("split", SPLITS), ("protocol", PROTOCOLS)):
        if options[name] not in choices:
            raise UserError(f"{name}={options[name]}: there is no such {name}; choose from: {', '.join(choices)}")
    out = options["out"]
    if out is not None and not Path(str(out)).parent.is_dir():
        raise UserError(f"out={out}: there is no folder {Path(str(out)).parent}")


def _data(restored: Restored, options: dict[str, Any]) -> ImageDataModule:
    """The run's data, looked at by the protocol; a step has as many views as the run's steps have images."""
    changes = dict(options["data"])
    if options["protocol"] == "ten_crop" and changes["eval_batch_size"] is None:
        changes["eval_batch_size"] = max(1, restored.settings["data"]["eval_batch_size"] // TEN)
    data = restored_data(restored, changes)
    data.evaluate_by(options["protocol"])
    if options["protocol"] == "ten_crop":
        _check_room(data)
    return data


def _check_room(data: ImageDataModule) -> None:
    assert data.augmentation is not None
    crop, stored = data.augmentation.crop_size, data.dataset.split("val").images.shape[2]
    if crop >= stored:
        raise UserError(
            f"protocol=ten_crop: crops of {crop} x {crop} are all that {data.spec.name} stores of an image, so there "
            "are no corners; choose protocol=center"
        )


def _trainer(settings: dict[str, Any], restored: Restored) -> pl.Trainer:
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # its lines about devices and tips
    for pattern in NOISE:
        warnings.filterwarnings("ignore", message=pattern)
    settings["precision"] = settings["precision"] or restored.settings["trainer"]["precision"]
    trainer: pl.Trainer = build(
        settings,
        "trainer",
        callbacks=[Progress()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    if trainer.world_size > 1:
        raise UserError(f"a checkpoint is measured on one device, got {trainer.world_size}: trainer=default|cpu|gpu")
    return trainer


def _never(*_: Any) -> Any:
    raise AssertionError("nothing is trained here")


def _print(path: Path, restored: Restored, options: dict[str, Any], images: int, result: dict[str, float]) -> None:
    table = Table(title=f"checkpoint of run {restored.settings['run']}", show_header=False, title_justify="left")
    for label, text in _rows(restored, options, images, result):
        table.add_row(label, text)
    console = Console()
    console.print(table)
    console.print(f"checkpoint: {path}", markup=False, highlight=False, soft_wrap=True)


def _rows(
    restored: Restored, options: dict[str, Any], images: int, result: dict[str, float]
) -> Iterable[tuple[str, str]]:
    yield "network", str(restored.settings["model"]["_target_"]).rpartition(".")[2]
    yield "trained for", f"{restored.step:,} steps"
    yield "data", f"{restored.settings['data']['name']}, {options['split']} split, {images:,} images"
    yield "protocol", options["protocol"]
    for name in ("top1", "top5", "loss"):
        metric = f"{options['split']}/{name}"
        yield metric, f"{result[metric]:.4f}"
