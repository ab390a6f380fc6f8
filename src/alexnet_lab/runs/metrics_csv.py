"""A run's loggers: `metrics.csv`, which every run writes, and those that the configuration names."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger

from alexnet_lab import distributed
from alexnet_lab.config.build import build
from alexnet_lab.errors import cannot_be_written
from alexnet_lab.loggers.others import NoLogger
from alexnet_lab.runs import folders
from alexnet_lab.runs.metric_rows import COLUMNS, read_columns, read_rows, write_rows


def make_loggers(settings: dict[str, Any], folder: Path) -> dict[str, Logger]:
    """The loggers by their keys in the configuration; ranks other than 0 get one that drops everything.

    Raises:
        UserError: as of `build`.
    """
    if distributed.rank() != 0:
        return {"": NoLogger()}  # callbacks ask for a logger on every rank
    chosen = {f"logger.{name}": build(node, f"logger.{name}", Logger) for name, node in settings.items() if node}
    return {folders.METRICS: MetricsCsv(folder / folders.METRICS), **chosen}


class MetricsCsv(Logger):
    """Appends one row per logged point, `epoch,step,<metric>...`, and flushes it, so that a kill loses nothing.

    A metric that is not a standard column adds a column at the right. Raises RunFailed on a full disk.
    """

    takes_layers = False
    """The statistics of layers have a file of their own, see `callbacks/layer_statistics.py`."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._columns = read_columns(path) or COLUMNS
        if not path.exists():
            write_rows(path, self._columns, [])

    @property
    def name(self) -> str:
        """Empty, so that lightning puts the files of its ModelCheckpoint directly into `save_dir`."""
        return ""

    @property
    def save_dir(self) -> str:
        return str(self._path.parent)

    @property
    def version(self) -> str:
        return ""

    def rows(self) -> list[dict[str, float]]:
        """The rows so far, those before a resumption included; for callbacks that draw them."""
        return read_rows(self._path)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The configuration has its own file."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        row = {"step": step, **metrics}
        new = [name for name in row if name not in self._columns]
        try:
            if new:
                self._columns = [*self._columns, *new]
                write_rows(self._path, self._columns, read_rows(self._path))
            with self._path.open("a", newline="") as file:
                csv.DictWriter(file, self._columns).writerow(row)
        except OSError as error:
            raise cannot_be_written(self._path, error) from error
