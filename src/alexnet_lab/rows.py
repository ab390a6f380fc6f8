"""An evaluation image by image: `Rows`, and the file `rows.csv`, one row per image in the order of the split.

| column | content |
|---|---|
| `sample` | the image's number in the split, from 0 |
| `path` | its file, relative to the dataset's folder; empty where the dataset keeps no names (a store, Fashion-MNIST) |
| `label`, `class` | its true class, as number and as name |
| `top1`, `top5` | 1 if the true class is the most probable one, or among the five most probable ones; else 0 |
| `loss` | the cross-entropy of this image, in nats |
| `label_1`, `class_1`, `probability_1`, ... | the most probable classes, five or all, the most probable first |

Losses and probabilities have `DIGITS` significant digits. Whatever is computed from rows is computed from these
rounded values, so that the file alone gives the same results.

N images, K classes, T = min(5, K) predictions per image. Imports neither torch nor lightning.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_lab import files
from alexnet_lab.errors import UserError

FILE, SUMMARY = "rows.csv", "summary.json"
FIRST_COLUMNS = ("sample", "path", "label", "class", "top1", "top5", "loss")
DIGITS = 6
"""The last bits of a float32 network depend on the machine; six digits are what it determines."""
Row = tuple[int | float | str, ...]


@dataclass(frozen=True)
class Rows:
    """An evaluation image by image; see the module for the meaning."""

    samples: NDArray[np.int64]
    """[N], ascending."""
    paths: Sequence[str] | None
    """None where the dataset keeps no names."""
    labels: NDArray[np.int64]
    """[N]"""
    best: NDArray[np.int64]
    """[N, T], the labels of the most probable classes."""
    probabilities: NDArray[np.float64]
    """[N, T], of `best`, rounded."""
    losses: NDArray[np.float64]
    """[N], rounded."""
    classes: Mapping[int, str]
    """Name by label; rows that were read from a file have only the names that occur in it."""

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def top1(self) -> NDArray[np.bool_]:
        """[N], whether the true class is the most probable one."""
        right: NDArray[np.bool_] = self.best[:, 0] == self.labels
        return right

    @property
    def top5(self) -> NDArray[np.bool_]:
        """[N], whether the true class is among the five most probable ones."""
        right: NDArray[np.bool_] = (self.best == self.labels[:, None]).any(1)
        return right

    @property
    def columns(self) -> list[str]:
        """The names of the columns of `table`."""
        ranks = range(1, self.best.shape[1] + 1)
        return [*FIRST_COLUMNS, *(f"{name}_{rank}" for rank in ranks for name in ("label", "class", "probability"))]

    def table(self) -> list[Row]:
        """One tuple of plain numbers and texts per image, for `columns`."""
        names = self.classes
        paths = self.paths if self.paths is not None else [""] * len(self)
        labels, columns = self.labels.tolist(), []
        for best, probabilities in zip(self.best.T.tolist(), self.probabilities.T.tolist(), strict=True):
            columns += [best, [names[label] for label in best], probabilities]
        right = (self.top1.astype(int).tolist(), self.top5.astype(int).tolist())
        facts = (self.samples.tolist(), paths, labels, [names[label] for label in labels], *right, self.losses.tolist())
        return list(zip(*facts, *columns, strict=True))


def rounded(values: NDArray[Any]) -> NDArray[np.float64]:
    """`values` with `DIGITS` significant digits: the numbers that are read back from the file."""
    texts = [float(f"{value:.{DIGITS}g}") for value in values.ravel().tolist()]
    return np.array(texts, np.float64).reshape(values.shape)


def write_rows(path: Path, rows: Rows) -> None:
    """Write `rows` to a CSV file, atomically."""
    write_table(path, rows.columns, rows.table())


def write_table(path: Path, columns: Sequence[str], table: Sequence[Sequence[Any]]) -> None:
    """Write a CSV file, atomically; file names that are not UTF-8 keep their bytes."""
    with (
        files.replacing(path) as unfinished,
        unfinished.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(table)


def read_rows(path: Path) -> Rows:
    """The rows in a file that `write_rows` has written.

    Raises:
        UserError: there is no such file, or it has no rows of this format.
    """
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            columns, *table = [*csv.reader(file)] or [[]]
            if not table:
                raise ValueError("it has no rows")
            found = dict(zip(columns, zip(*table, strict=True), strict=True))
            return _rows_of(found, (len(columns) - len(FIRST_COLUMNS)) // 3)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, csv.Error) as error:
        reason = f"it has no column {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{path} is not a file of rows, or it is damaged: {reason}") from error


def _rows_of(found: Mapping[str, Sequence[str]], predictions: int) -> Rows:
    def numbers(name: str) -> NDArray[np.int64]:
        return np.array([int(text) for text in found[name]], np.int64)

    ranks = range(1, predictions + 1)
    classes = dict(zip(numbers("label").tolist(), found["class"], strict=True))
    for rank in ranks:
        classes |= dict(zip(numbers(f"label_{rank}").tolist(), found[f"class_{rank}"], strict=True))
    return Rows(
        samples=numbers("sample"),
        paths=found["path"] if any(found["path"]) else None,
        labels=numbers("label"),
        best=np.stack([numbers(f"label_{rank}") for rank in ranks], 1),
        probabilities=np.array([found[f"probability_{rank}"] for rank in ranks], np.float64).T,
        losses=np.array(found["loss"], np.float64),
        classes=classes,
    )


def different_images(ours: Rows, theirs: Rows) -> str:
    """How the images of two evaluations differ; '' if they are the same images with the same classes."""
    if len(ours) != len(theirs):
        return f"{len(ours):,} and {len(theirs):,} images"
    for row, (one, two) in enumerate(zip(ours.samples.tolist(), theirs.samples.tolist(), strict=True)):
        if one != two:
            return f"row {row + 1} is sample {one} and sample {two}"
    if ours.paths is not None and theirs.paths is not None:
        for one, two in zip(ours.paths, theirs.paths, strict=True):
            if one != two:
                return f"{one} and {two}"
    for row in np.flatnonzero(ours.labels != theirs.labels).tolist()[:1]:
        return f"sample {ours.samples[row]} has the labels {ours.labels[row]} and {theirs.labels[row]}"
    for label in sorted(ours.classes.keys() & theirs.classes.keys()):
        if ours.classes[label] != theirs.classes[label]:
            return f"class {label} is {ours.classes[label]} and {theirs.classes[label]}"
    return ""
