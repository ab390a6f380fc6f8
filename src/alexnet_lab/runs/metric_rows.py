"""The rows of a `metrics.csv`: reading, cutting, and the final and best figures among them.

Imports nothing heavy, since comparisons read hundreds of them.
"""

import csv
from pathlib import Path

from alexnet_lab import files
from alexnet_lab.metric_names import FIGURES

COLUMNS = ["epoch", "step", "train/loss_step", "lr", "train/grad_norm", *FIGURES]
SMALLER_IS_BETTER = "loss"


def read_columns(path: Path) -> list[str]:
    """The header of a `metrics.csv`; empty where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return next(csv.reader(file), [])


def read_rows(path: Path) -> list[dict[str, float]]:
    """The rows of a `metrics.csv`, each with the figures that it has; a last row cut off by a kill is left out."""
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


def final_figures(rows: list[dict[str, float]]) -> dict[str, float]:
    """The last value of every metric."""
    return {name: value for row in rows for name, value in row.items() if "/" in name}


def best_figures(rows: list[dict[str, float]]) -> dict[str, float]:
    """The best value of every loss, the smallest, and of every accuracy, the largest."""
    best: dict[str, float] = {}
    for row in rows:
        for name, value in row.items():
            if name in FIGURES or name == "train/loss_step":
                choose = min if SMALLER_IS_BETTER in name else max
                best[name] = choose(value, best.get(name, value))
    return best


def write_rows(path: Path, columns: list[str], rows: list[dict[str, float]]) -> None:
    with files.replacing(path) as unfinished, unfinished.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for row in rows:
            writer.writerow({name: int(value) if name in ("epoch", "step") else value for name, value in row.items()})
