"""Predicts the classes of images; prints a table and writes a file and a picture."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_type_hints

import numpy as np
import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from pydantic import Field

from alexnet_lab import files
from alexnet_lab.commands.evaluate import PROTOCOLS, Protocol
from alexnet_lab.config.by_device import use_recorded
from alexnet_lab.config.memory import remedies_when_full
from alexnet_lab.config.output_file import check_output
from alexnet_lab.config.values import check_values
from alexnet_lab.data.image_kinds import LeftOut
from alexnet_lab.data.preprocessing import Preprocessing
from alexnet_lab.data.sources.given import GivenImage, given_images
from alexnet_lab.data.spec import mean_over_views
from alexnet_lab.data.store.images import read_image
from alexnet_lab.data.store.modes import Unreadable
from alexnet_lab.errors import UserError, printable
from alexnet_lab.launch import gpus
from alexnet_lab.pictures.sheet import sheet
from alexnet_lab.report import predictions
from alexnet_lab.report.predictions import Prediction
from alexnet_lab.runs.checkpoint import Checkpoint, Modules, read_checkpoint

Positive = Annotated[int, Field(ge=1)]
KINDS = {
    "checkpoint": str,
    "images": str | list[str],
    "protocol": Protocol,
    "top": Positive,
    "batch_size": Positive,
    "out": str | None,
    "sheet": str | None,
    "explain": Literal["gradcam"] | None,
    "explain_class": str | int | None,
    "accelerator": str,
    "precision": get_type_hints(Fabric.__init__)["precision"],
    "modules": Modules,
}
"""The types of the options."""
ON_SHEET = 40
"""Largest number of images on the sheet."""
COLUMNS = 8
SHOWN_FAILURES = 20


class Read(NamedTuple):
    image: GivenImage
    square: NDArray[np.uint8] | None
    """[C, H, H]; None if the file is unreadable."""
    reason: str = ""


@dataclass
class Predictions:
    """The predictions and the unreadable files."""

    done: list[Prediction] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    """File and reason of each unreadable file."""
    pictures: dict[str, Image.Image] = field(default_factory=dict)
    """Images for the sheet, by path."""
    maps: dict[str, tuple[Image.Image, str]] = field(default_factory=dict)
    """Pictures of the evidence for a class, with captions; for the same images if a class is explained."""


def predict(config: DictConfig) -> list[Prediction]:
    """Predict the classes of the images that `config` names, see `conf/predict.yaml`; print, write and return them.

    Images are preprocessed as in evaluation, so the same images have the same top-1.

    Raises:
        UserError: not an AlexNet Lab checkpoint, a wrong option, or no image; or, after all results are written, some
            images could not be read.
    """
    options: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    places = _check_options(options)
    checkpoint = read_checkpoint(options["checkpoint"], options["modules"])
    preprocessing = checkpoint.needed_preprocessing()
    if options["protocol"] == "ten_crop":
        _check_ten_crop(checkpoint, preprocessing)
    if options["explain_class"] is not None:
        options["explain_class"] = predictions.index_of(options["explain_class"], preprocessing.classes)
    left_out = LeftOut()
    images = given_images(places, left_out)
    found = _predict_all(images, checkpoint, preprocessing, options)
    network = str(checkpoint.settings["model"]["_target_"]).rpartition(".")[2]
    predictions.show(found.done, f"{network} of {checkpoint.origin}, {options['protocol']}")
    for line in left_out.lines():
        print(line)
    if options["out"]:
        about = {"checkpoint": options["checkpoint"], "network": network, "protocol": options["protocol"]}
        out = Path(options["out"])
        predictions.write(out, about, found.done, found.failed)
        files.print_written(out)
    if options["sheet"] and found.pictures:
        shown = [one for one in found.done if one.path in found.pictures]
        pictures = [found.pictures[one.path] for one in shown]
        maps = [found.maps[one.path] for one in shown if one.path in found.maps]
        columns = COLUMNS // 2 if maps else COLUMNS
        rows, truths = [one.classes for one in shown], [one.truth for one in shown]
        picture = sheet(pictures, rows, truths, columns, [one.path for one in shown], maps)
        with files.replacing(Path(options["sheet"])) as unfinished:
            picture.save(unfinished, "PNG")
        files.print_written(Path(options["sheet"]))
    if found.failed:
        lines = [f"  {name}: {reason}" for name, reason in found.failed[:SHOWN_FAILURES]]
        more = len(found.failed) - len(lines)
        lines += [f"  and {more} more"] if more else []
        head = f"{len(found.failed)} of {len(images)} images could not be read; all others were predicted"
        raise UserError("\n".join([head, *lines]))
    return found.done


def _check_options(options: dict[str, Any]) -> list[str]:
    """Check the options; return the locations of the images."""
    if not isinstance(options["checkpoint"], str):
        raise UserError("name a checkpoint: checkpoint=PATH, such as logs/train/runs/NAME/checkpoints/best.ckpt")
    given = options["images"]
    places = given if isinstance(given, list) else [given]
    if not places or not all(isinstance(place, str) for place in places):
        raise UserError("name images: images=PATH, a file, folder, tar or zip archive, pattern, or a list of these")
    if options["protocol"] not in PROTOCOLS:
        raise UserError(
            f"protocol={options['protocol']}: there is no such protocol; choose from: {', '.join(PROTOCOLS)}"
        )
    for key in ("top", "batch_size"):
        if type(options[key]) is not int or options[key] < 1:
            raise UserError(f"{key} must be a whole number of at least 1, got {options[key]}")
    for key, suffixes in (("out", (".json", ".csv")), ("sheet", (".png",))):
        check_output(key, options[key], suffixes)
    if options["explain"] not in (None, "gradcam"):
        raise UserError(f"explain={options['explain']}: there is no such method; choose gradcam")
    check_values(options, KINDS)
    if options["explain"] and options["sheet"] is None:
        raise UserError("explain=gradcam is drawn on the sheet: name one, sheet=FILE.png")
    if options["explain"] and options["protocol"] != "center":
        raise UserError("explain=gradcam explains one view of each image; choose protocol=center")
    if options["explain_class"] is not None and not options["explain"]:
        raise UserError("explain_class needs explain=gradcam")
    return places


def _check_ten_crop(checkpoint: Checkpoint, preprocessing: Preprocessing) -> None:
    preprocessing.check_ten_crop()
    # Older checkpoints contain only the centre of the mean image.
    if checkpoint.settings["data"].get("mean") == "image_at_crop" and preprocessing.whole_mean_image is None:
        raise UserError(
            "protocol=ten_crop: this old checkpoint contains only the centre of the mean image; choose protocol=center"
        )


def _predict_all(
    images: Sequence[GivenImage], checkpoint: Checkpoint, preprocessing: Preprocessing, options: dict[str, Any]
) -> Predictions:
    given = {key: options[key] for key in ("accelerator", "precision")}
    fabric = _fabric(**use_recorded(given, checkpoint.settings, "precision", "accelerator=cpu"))
    with remedies_when_full(UserError, "accelerator=cpu"):
        net = fabric.setup_module(checkpoint.network(fabric.strategy.precision))
    layout = torch.channels_last if checkpoint.settings["channels_last"] else torch.contiguous_format
    ten_crop = options["protocol"] == "ten_crop"
    on_sheet = _spread(images) if options["sheet"] else set()
    found = Predictions()
    if options["explain"]:
        from alexnet_lab.models.gradcam import grad_cam
        from alexnet_lab.pictures.gradcam import heat_picture
    for batch in _read_batches(images, preprocessing, options["batch_size"]):
        found.failed += [
            (printable(image.path), printable(reason)) for image, square, reason in batch if square is None
        ]
        good = [(image, square) for image, square, _ in batch if square is not None]
        if not good:
            continue
        explained = None
        explain = options["explain"] and any(image.path in on_sheet for image, _ in good)
        with (
            torch.no_grad() if explain else torch.inference_mode(),
            remedies_when_full(UserError, "a smaller batch_size, or accelerator=cpu"),
        ):
            inputs = preprocessing.inputs([square for _, square in good], ten_crop, fabric.device)
            inputs = inputs.contiguous(memory_format=layout)
            if explain:
                with fabric.autocast():
                    inputs = fabric.strategy.precision.convert_input(inputs)
                    explained = grad_cam(net.module, inputs, options["explain_class"])
            logits = mean_over_views(net(inputs) if explained is None else explained.logits, len(good))
        if logits.shape[1] != len(preprocessing.classes):
            raise UserError(
                f"the checkpoint has {len(preprocessing.classes)} class names for {logits.shape[1]} classes"
            )
        for place, ((image, square), row) in enumerate(zip(good, logits.cpu().double().softmax(1), strict=True)):
            found.done.append(predictions.ranked(image, row, preprocessing.classes, options["top"]))
            if image.path not in on_sheet:
                continue
            path, shown = printable(image.path), preprocessing.seen(square) if explained else square
            found.pictures[path] = Image.fromarray(shown.transpose(1, 2, 0).squeeze())
            if explained:
                name = printable(preprocessing.classes[explained.classes[place]])
                values = explained.maps[place].cpu()
                caption = f"Grad-CAM: {name}" if values.any() else f"no evidence for {name}"
                found.maps[path] = heat_picture(shown, values), caption
    return found


def _fabric(accelerator: Any, precision: Any) -> Fabric:
    gpus.check(accelerator, gpus.look(), "accelerator", "accelerator=cpu")
    try:
        # Explicit, so that Fabric does not look for Slurm and similar environments.
        return Fabric(accelerator=accelerator, devices=1, precision=precision, plugins=[LightningEnvironment()])
    except (ValueError, RuntimeError, ModuleNotFoundError, MisconfigurationException) as error:
        raise UserError(f"accelerator={accelerator} precision={precision}: {error}") from error


def _spread(images: Sequence[GivenImage]) -> set[str]:
    """The paths of up to `ON_SHEET` images, evenly spaced in the list."""
    number = min(ON_SHEET, len(images))
    return {images[place * len(images) // number].path for place in range(number)}


def _read_batches(images: Sequence[GivenImage], preprocessing: Preprocessing, size: int) -> Iterator[list[Read]]:
    """The images in order; the next batch is read while the current one is computed."""

    def read(image: GivenImage) -> Read:
        try:
            return Read(image, preprocessing.decode(read_image(image.blob)))
        except (Unreadable, OSError) as error:
            return Read(image, None, str(error))

    with ThreadPoolExecutor() as pool:
        reading: list[Iterator[Read]] = []
        for start in range(0, len(images), size):
            reading.append(pool.map(read, images[start : start + size]))
            if len(reading) == 2:
                yield list(reading.pop(0))
        yield from map(list, reading)
