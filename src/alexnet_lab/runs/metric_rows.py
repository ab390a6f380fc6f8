"""The rows of a `metrics.csv`: reading, cutting, and the final and best metrics in them.

Imports nothing heavy, since comparisons read hundreds of files.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alexnet_lab import files
from alexnet_lab.metric_names import FIGURES

COLUMNS = ["epoch", "step", "train/loss_step", "lr", "train/grad_norm", *FIGURES]
OF_AN_EPOCH = frozenset(name for name in FIGURES if not name.startswith("test/"))
SMALLER_IS_BETTER = "loss"


def read_columns(path: Path) -> list[str]:
    """The header of a `metrics.csv`; empty where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return next(csv.reader(file), [])


def read_rows(path: Path) -> list[dict[str, float]]:
    """The rows of a `metrics.csv`, each with the metrics that it has; a last row cut off by a kill is left out."""
    if not path.exists():
        return []
    text = path.read_text()
    whole = text[: text.rfind("\n") + 1]
    rows = csv.DictReader(whole.splitlines())
    return [{name: float(value) for name, value in row.items() if value} for row in rows]


def truncate(path: Path, step: int) -> None:
    """Drop the rows after `step`: a run continued from there writes them again."""
    rows = [row for row in read_rows(path) if row["step"] <= step and not any(name.startswith("test/") for name in row)]
    write_rows(path, read_columns(path) or COLUMNS, rows)


def write_rows(path: Path, columns: list[str], rows: list[dict[str, float]]) -> None:
    with files.replacing(path) as unfinished, unfinished.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for row in rows:
            writer.writerow({name: int(value) if name in ("epoch", "step") else value for name, value in row.items()})


def figures(rows: Sequence[Mapping[str, float]], seconds_at: Mapping[int, float]) -> dict[str, Any]:
    """The entries of `result.json` that follow from the rows; `seconds_at` gives the run's time in s by step.

    The best epoch, from 0, is that of the highest validation top-1 with a finite loss, the first of equal ones.
    """
    known = [row for row in rows if math.isfinite(row.get("val/top1", math.nan) + row.get("val/loss", 0.0))]
    best = max(known, key=lambda row: row["val/top1"], default={"step": -1})
    return {
        "final": final_metrics(rows),
        "best": best_metrics(rows),
        "best_epoch": int(best["epoch"]) if "epoch" in best else None,
        "seconds_to_best": seconds_at.get(int(best["step"])),
    }


def final_metrics(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The last value of every metric."""
    return {name: value for row in rows for name, value in row.items() if "/" in name}


def best_metrics(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The smallest value of every loss and the largest of every accuracy."""
    best: dict[str, float] = {}
    for row in rows:
        for name, value in row.items():
            if name in FIGURES or name == "train/loss_step":
                choose = min if SMALLER_IS_BETTER in name else max
                best[name] = choose(value, best.get(name, value))
    return best


def epochs(rows: Sequence[Mapping[str, float]]) -> int | None:
    """Epochs that a training or validation metric is recorded of; None without any."""
    ended = [row["epoch"] for row in rows if "epoch" in row and not OF_AN_EPOCH.isdisjoint(row)]
    return int(max(ended)) + 1 if ended else None


def learning_rates(rows: Sequence[Mapping[str, float]]) -> list[tuple[int, float]]:
    """The first learning rate, and each later change with the epoch, from 1, in which it is first logged."""
    found: list[tuple[int, float]] = []
    for row in rows:
        if "lr" in row and (not found or row["lr"] != found[-1][1]):
            found.append((int(row["epoch"]) + 1, row["lr"]))
    return found
