"""A run's loggers: its own record, `metrics.csv`, and those that the configuration names."""

from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from alexnet_lab import distributed
from alexnet_lab.config.build import build
from alexnet_lab.loggers.others import NoLogger
from alexnet_lab.runs import folders, metrics_csv


def make_loggers(settings: dict[str, Any], folder: Path) -> dict[str, Logger]:
    """By their keys in the configuration; on ranks other than 0 one that drops everything, as callbacks ask for one.

    Raises:
        UserError: as of `build`.
    """
    if distributed.rank() != 0:
        return {"": NoLogger()}
    chosen = {f"logger.{name}": build(node, f"logger.{name}", Logger) for name, node in settings.items() if node}
    return {folders.METRICS: metrics_csv.MetricsCsv(folder / folders.METRICS), **chosen}
