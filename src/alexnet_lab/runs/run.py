"""A run as the comparison sees it, whatever it was read from, and its figures."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from alexnet_lab import metric_names
from alexnet_lab.runs.metric_rows import best_figures, final_figures

Status = Literal["finished", "failed", "interrupted", "unfinished"]
Rows = Sequence[Mapping[str, float]]

OF_AN_EPOCH = frozenset(name for name in metric_names.FIGURES if not name.startswith("test/"))


@dataclass(frozen=True)
class Run:
    """One run.

    `unfinished` says that it is running, or that the record of its end is damaged. `facts` is what `result.json` tells
    beside the metrics: `seconds`, `images_per_second`, `parameters`, `macs`, `images` (how many each split had).
    `final` and `best` are figures by metric name.
    """

    name: str
    source: str
    status: Status
    config: Mapping[str, Any]
    facts: Mapping[str, Any] = field(default_factory=dict)
    rows: Rows = ()
    final: Mapping[str, float] = field(default_factory=dict)
    best: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None
    pictures: Sequence[Path] = ()


@dataclass(frozen=True)
class Figure:
    """A figure of a run: `key` names it in `sort=` and in CSV; `text` is a format specification."""

    key: str
    title: str
    text: str
    better: Literal["larger", "smaller"]


FIGURES = (
    Figure("test/top1", "test top-1", ".4f", "larger"),
    Figure("test/top5", "test top-5", ".4f", "larger"),
    Figure("best_val/top1", "best val top-1", ".4f", "larger"),
    Figure("val/top1", "final val top-1", ".4f", "larger"),
    Figure("best_val/top5", "best val top-5", ".4f", "larger"),
    Figure("val/top5", "final val top-5", ".4f", "larger"),
    Figure("epochs", "epochs", ".0f", "smaller"),
    Figure("seconds", "time (s)", ",.0f", "smaller"),
    Figure("images_per_second", "images/s", ",.0f", "larger"),
    Figure("parameters", "parameters", ",.0f", "smaller"),
    Figure("macs", "MACs", ",.0f", "smaller"),
)


def figures(run: Run) -> dict[str, float]:
    """What is known of `run` among `FIGURES`, by key; accuracies are fractions of 1.

    A metric's final and best values are those of the rows, and the recorded ones where there are no rows.
    """
    rows = [{name: value for name, value in row.items() if math.isfinite(value)} for row in run.rows]
    final, best = {**run.final, **final_figures(rows)}, {**run.best, **best_figures(rows)}
    found: dict[str, Any] = {
        "epochs": epochs(rows),
        **{key: run.facts.get(key) for key in ("seconds", "images_per_second", "parameters", "macs")},
        **{key: final.get(key) for key in ("test/top1", "test/top5", "val/top1", "val/top5")},
        **{f"best_{key}": best.get(key) for key in ("val/top1", "val/top5")},
    }
    if not rows and run.status == "finished":
        found["epochs"] = _mapping(run.config.get("trainer")).get("max_epochs")
    return {key: float(value) for key, value in found.items() if _is_number(value)}


def epochs(rows: Rows) -> int | None:
    """Epochs of which a training or validation figure is recorded; None without any."""
    ended = [row["epoch"] for row in rows if "epoch" in row and not OF_AN_EPOCH.isdisjoint(row)]
    return int(max(ended)) + 1 if ended else None


def published(run: Run) -> dict[str, Mapping[str, Any]]:
    """The published figures that the run's experiment states: metric -> `value`, perhaps `deviation` and `range`."""
    stated = _mapping(_mapping(run.config.get("recipe")).get("published"))
    return {
        str(metric): figure
        for metric, figure in stated.items()
        if isinstance(figure, Mapping) and _is_number(figure.get("value"))
    }


def images(run: Run, split: str) -> int | None:
    """How many images of `split` the run's figures are over; None where it is not recorded."""
    number: Any = _mapping(run.facts.get("images")).get(split)
    return int(number) if _is_number(number) and number > 0 else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
