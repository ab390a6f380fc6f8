"""The files of `evaluate rows=FOLDER`: the rows, and what follows from them.

| file | content |
|---|---|
| `rows.csv` | one row per image, see `alexnet_lab.rows` |
| `classes.csv` | accuracy and mean loss of each class |
| `confusions.csv` | pairs of true and predicted class, the most frequent first |
| `worst.png` | the images with the highest loss, with their predictions |
| `calibration.csv`, `calibration.png` | the bins behind the calibration error, and their picture |
| `summary.json` | what was evaluated, the metrics, and the calibration error `ece` |
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from alexnet_lab import files
from alexnet_lab.errors import UserError, printable
from alexnet_lab.pictures.reliability import reliability_picture
from alexnet_lab.pictures.sheet import sheet
from alexnet_lab.report.calibration import Bin, calibration, expected_error
from alexnet_lab.rows import DIGITS, FILE, SUMMARY, Rows, write_rows, write_table

CLASSES, CONFUSIONS, WORST = "classes.csv", "confusions.csv", "worst.png"
BINS, RELIABILITY = "calibration.csv", "calibration.png"
WORST_IMAGES, SHEET_COLUMNS = 32, 8

Pixels = Callable[[int], NDArray[np.uint8]]
"""The stored pixels of a sample, [C, H, W]."""


def check_folder(folder: Path, key: str) -> None:
    """Raise UserError if the folder cannot be made, or no file can be written in it; makes nothing."""
    there = next(one for one in (folder, *folder.parents) if one.exists())
    if not there.is_dir():
        raise UserError(f"{key}={folder}: {there} is a file; {key} takes a folder, in which several files are written")
    try:
        files.try_to_write(there / FILE)
    except OSError as error:
        raise UserError(f"{key}={folder}: no file can be written in {there} ({error.strerror})") from error


def write_folder(folder: Path, rows: Rows, pixels: Pixels, about: Mapping[str, Any]) -> list[str]:
    """Write all files, each atomically, and print their paths; `about` is what `summary.json` begins with.

    Returns lines for the user: the calibration error and the most frequent confusions.
    """
    folder.mkdir(parents=True, exist_ok=True)
    confused, bins = confusions(rows), calibration(rows)
    error = expected_error(bins)
    write_rows(folder / FILE, rows)
    write_table(folder / CLASSES, ("label", "class", "images", "top1", "top5", "loss"), _rounded(by_class(rows)))
    columns = ("label", "class", "predicted_label", "predicted_class", "images", "share")
    write_table(folder / CONFUSIONS, columns, _rounded(confused))
    _save(folder / WORST, worst_images(rows, pixels))
    write_table(folder / BINS, Bin._fields, _rounded(bins))
    _save(folder / RELIABILITY, reliability_picture(bins, error))
    files.write(folder / SUMMARY, json.dumps({**about, "ece": error}, indent=2) + "\n")
    for name in (FILE, CLASSES, CONFUSIONS, WORST, BINS, RELIABILITY, SUMMARY):
        files.print_written(folder / name)
    lines = [f"calibration error (ECE, {len(bins)} bins): {error:.4f}"]
    return lines + [
        printable(f"images of {one} that were taken for {two}: {images:,}")
        for _, one, _, two, images, _ in confused[:3]
    ]


def _rounded(table: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """The table with `DIGITS` significant digits of each fraction, as in `rows.csv`."""
    return [[f"{value:.{DIGITS}g}" if isinstance(value, float) else value for value in line] for line in table]


def by_class(rows: Rows) -> list[tuple[Any, ...]]:
    """Label, name, images, top-1, top-5 and mean loss of every class; the last three are None without images."""
    number = max(rows.classes) + 1
    counts = np.bincount(rows.labels, minlength=number).tolist()
    sums = [np.bincount(rows.labels, one, number).tolist() for one in (rows.top1, rows.top5, rows.losses)]
    return [
        (label, name, counts[label], *(one[label] / counts[label] if counts[label] else None for one in sums))
        for label, name in sorted(rows.classes.items())
    ]


def confusions(rows: Rows) -> list[tuple[Any, ...]]:
    """Label and name of the true and of the predicted class, images, and their share of the true class's images."""
    wrong, number = ~rows.top1, max(rows.classes) + 1
    pairs, counts = np.unique(rows.labels[wrong] * number + rows.best[wrong, 0], return_counts=True)
    images = np.bincount(rows.labels, minlength=number).tolist()
    order = np.argsort(-counts, kind="stable")
    found: Iterator[tuple[int, int]] = zip(pairs[order].tolist(), counts[order].tolist(), strict=True)
    names = rows.classes
    return [
        (
            pair // number,
            names[pair // number],
            pair % number,
            names[pair % number],
            count,
            count / images[pair // number],
        )
        for pair, count in found
    ]


def worst_images(rows: Rows, pixels: Pixels) -> Image.Image:
    """The sheet of the images with the highest loss, the highest first."""
    losses = np.nan_to_num(rows.losses, nan=np.inf)
    worst = np.argsort(-losses, kind="stable")[:WORST_IMAGES].tolist()
    predicted = [
        [(rows.classes[label], value) for label, value in zip(labels, values, strict=True)]
        for labels, values in zip(rows.best[worst].tolist(), rows.probabilities[worst].tolist(), strict=True)
    ]
    truths = [rows.classes[label] for label in rows.labels[worst].tolist()]
    notes = [f"{name_of(rows, row)}, loss {rows.losses[row]:.3g}" for row in worst]
    images = [picture(pixels(int(rows.samples[row]))) for row in worst]
    return sheet(images, predicted, truths, SHEET_COLUMNS, notes)


def name_of(rows: Rows, row: int) -> str:
    """The image's file, or its number where the dataset keeps no names."""
    return rows.paths[row] if rows.paths is not None else f"sample {rows.samples[row]}"


def picture(pixels: NDArray[np.uint8]) -> Image.Image:
    """uint8 [C, H, W] as an image; of other numbers of channels than 1 and 3 the first."""
    return Image.fromarray(pixels.transpose(1, 2, 0) if len(pixels) == 3 else pixels[0])


def _save(path: Path, image: Image.Image) -> None:
    with files.replacing(path) as unfinished:
        image.save(unfinished, "PNG")
