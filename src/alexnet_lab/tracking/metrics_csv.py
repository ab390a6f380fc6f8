"""`metrics.csv`: the run's own record of every logged point, there with or without any other logger."""

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger

from alexnet_lab.tracking.rows import read_columns, read_rows

FIGURES = [f"{split}/{name}" for split in ("train", "val", "test") for name in ("loss", "top1", "top5")]
COLUMNS = ["epoch", "step", "train/loss_step", "lr", "train/grad_norm", *FIGURES]
SMALLER_IS_BETTER = "loss"


class MetricsCsv(Logger):
    """Appends one row per logged point, `epoch,step,<metric>...`, and flushes it, so that a kill loses nothing.

    A metric that is not among the standard columns adds a column at the right.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._columns = read_columns(path) or COLUMNS
        if not path.exists():
            _write(path, self._columns, [])

    @property
    def name(self) -> str:
        return "metrics.csv"

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The configuration has its own file."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        row = {"step": step, **metrics}
        new = [name for name in row if name not in self._columns]
        if new:
            self._columns = [*self._columns, *new]
            _write(self._path, self._columns, read_rows(self._path))
        with self._path.open("a", newline="") as file:
            csv.DictWriter(file, self._columns).writerow(row)


def truncate(path: Path, step: int) -> None:
    """Drop the rows after `step`: a run continued from there writes them again."""
    rows = [row for row in read_rows(path) if row["step"] <= step and not any(name.startswith("test/") for name in row)]
    _write(path, read_columns(path) or COLUMNS, rows)


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


def _write(path: Path, columns: list[str], rows: list[dict[str, float]]) -> None:
    temporary = path.with_suffix(".writing")
    with temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for row in rows:
            writer.writerow({name: int(value) if name in ("epoch", "step") else value for name, value in row.items()})
    os.replace(temporary, path)
