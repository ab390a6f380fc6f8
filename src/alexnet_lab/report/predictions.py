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

from alexnet_lab import files

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
