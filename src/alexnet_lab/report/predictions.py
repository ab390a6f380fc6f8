"""The predictions of `predict`: as a table on the terminal, as JSON and as CSV."""

import csv
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor

from alexnet_lab import files
from alexnet_lab.config.advice import did_you_mean
from alexnet_lab.data.imagenet_classes import names_by_wnid
from alexnet_lab.data.sources.given import GivenImage
from alexnet_lab.errors import UserError, names_of, printable

SHOWN = 50
"""Number of images in the table on the terminal."""
COLUMNS = ("path", "true_class", "rank", "class", "probability")
"""Columns of the CSV file, which has one row per image and predicted class."""


class Prediction(NamedTuple):
    """The prediction for one image."""

    path: str
    truth: str | None
    """The class that the image's folder is named after, which may be unknown to the network; None if unclear."""
    classes: list[tuple[str, float]]
    """Names and probabilities, most probable first."""
    rank: int | None
    """The number of classes that are more probable than the true one; None if the network lacks the true class."""


def ranked(image: GivenImage, probabilities: Tensor, classes: Sequence[str], top: int) -> Prediction:
    """The `top` most probable classes of an image; `probabilities`: float [K]."""
    values, places = (sorted_.tolist() for sorted_ in probabilities.sort(descending=True))
    best = [(printable(classes[place]), value) for value, place in zip(values[:top], places[:top], strict=True)]
    named = (names_by_wnid().get(folder) or (folder if folder in classes else None) for folder in image.folders)
    truth = next(filter(None, named), None)
    # A dataset of others may have two classes of one name.
    rank = places.index(classes.index(truth)) if truth and classes.count(truth) == 1 else None
    return Prediction(printable(image.path), printable(truth) if truth else None, best, rank)


def index_of(given: str | int, classes: Sequence[str]) -> int:
    """The index of the class of this name, or with this index if no class is named so; `explain_class=`.

    Raises:
        UserError: there is none, or several classes have the name.
    """
    places = [place for place, name in enumerate(classes) if name == str(given)]
    if len(places) > 1:
        raise UserError(f"explain_class={given}: {len(places)} classes have this name; choose an index: {places}")
    if places:
        return places[0]
    if str(given).isdecimal() and int(given) < len(classes):
        return int(given)
    near = did_you_mean(str(given), classes) or f": the classes are {names_of(classes)}"
    raise UserError(f"explain_class={given}: no class has this name, or this index from 0 to {len(classes) - 1}{near}")


def show(predictions: Sequence[Prediction], title: str) -> None:
    """Print the first images as a table, and the accuracy over the images whose true class is known."""
    console = Console()
    if predictions:
        folder = os.path.commonpath([os.path.dirname(os.path.abspath(one.path)) for one in predictions[:SHOWN]])
        console.print(_table(predictions[:SHOWN], f"{title}\n{folder}", folder))
    if len(predictions) > SHOWN:
        console.print(f"and {len(predictions) - SHOWN} more; out=FILE.csv or out=FILE.json saves all", highlight=False)
    known = [one for one in predictions if one.rank is not None]
    if known:
        top1 = sum(one.rank == 0 for one in known) / len(known)
        top5 = sum(one.rank is not None and one.rank < 5 for one in known) / len(known)
        accuracy = f"top-1 {top1:.4f}, top-5 {top5:.4f} on the {len(known)} images in folders named after a known class"
        console.print(accuracy, highlight=False, soft_wrap=True)


def _table(predictions: Iterable[Prediction], title: str, folder: str) -> Table:
    table = Table(title=Text(title), title_justify="left")
    table.add_column("image", overflow="fold")
    table.add_column("class", overflow="fold")
    table.add_column("probability", justify="right", no_wrap=True)
    table.add_column("next", overflow="fold", style="dim")
    for one in predictions:
        (name, probability), *others = one.classes
        right = {None: "", True: "green", False: "red"}[None if one.rank is None else one.rank == 0]
        then = ", ".join(f"{other} {value:.1%}" for other, value in others)
        table.add_row(Text(os.path.relpath(one.path, folder)), Text(name, right), f"{probability:.1%}", Text(then))
    return table


def write(
    path: Path, about: dict[str, Any], predictions: Sequence[Prediction], failed: Sequence[tuple[str, str]]
) -> None:
    """Write a CSV file with `COLUMNS`, or a JSON file, which also contains `about` and the unreadable files."""
    if path.suffix.lower() == ".csv":
        with files.replacing(path) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for one in predictions:
                ranked = enumerate(one.classes, 1)
                writer.writerows((one.path, one.truth or "", rank, *pair) for rank, pair in ranked)
        return
    images = [
        {
            "path": one.path,
            "true_class": one.truth,
            "classes": [{"class": name, "probability": probability} for name, probability in one.classes],
        }
        for one in predictions
    ]
    bad = [{"path": name, "reason": reason} for name, reason in failed]
    files.write(path, json.dumps({**about, "images": images, "failed": bad}, indent=2) + "\n")
