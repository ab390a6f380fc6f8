"""Learning curves: the logged points of every metric of a run, thinned for drawing."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from alexnet_lab.runs.run import Run

POINTS_OF_A_CURVE = 400
ORDER = ("train/loss", "val/loss", "train/top1", "val/top1", "train/top5", "val/top5", "lr", "train/loss_step")


@dataclass(frozen=True)
class Metric:
    """A metric and its x-axis `over`: `epoch`, or `step` (optimizer steps) if it is logged several times per epoch."""

    name: str
    over: str


@dataclass(frozen=True)
class Points:
    """A run's logged values of one metric. The first epoch is 1: a value is drawn at the end of its epoch."""

    epoch: list[float] = field(default_factory=list)
    step: list[float] = field(default_factory=list)
    value: list[float] = field(default_factory=list)

    def over(self, axis: str) -> tuple[list[float], list[float]]:
        """x and y of the curve, thinned."""
        thinned = thin(list(zip(self.epoch if axis == "epoch" else self.step, self.value, strict=True)))
        return [x for x, _ in thinned], [y for _, y in thinned]


@dataclass(frozen=True)
class Curves:
    """A group's runs with their points by metric."""

    name: str
    runs: Sequence[tuple[str, Mapping[str, Points]]]


def points(run: Run) -> dict[str, Points]:
    """The run's points by metric, without test metrics, which are logged once, and without NaN."""
    found: dict[str, Points] = {}
    for row in run.rows:
        if "epoch" not in row or "step" not in row:
            continue
        for name, value in row.items():
            if name not in ("epoch", "step") and not name.startswith("test/") and math.isfinite(value):
                known = found.setdefault(name, Points())
                known.epoch.append(row["epoch"] + 1)
                known.step.append(row["step"])
                known.value.append(value)
    return found


def metrics(groups: Sequence[Curves]) -> list[Metric]:
    """The metrics that at least one run has logged, losses and accuracies first."""
    by_name: dict[str, list[Points]] = {}
    for group in groups:
        for _, known in group.runs:
            for name, one in known.items():
                by_name.setdefault(name, []).append(one)
    names = [name for name in ORDER if name in by_name] + sorted(set(by_name) - set(ORDER))
    several = {name for name in names if any(len(set(one.epoch)) < len(one.epoch) for one in by_name[name])}
    return [Metric(name, "step" if name in several else "epoch") for name in names]


def thin(points: Sequence[tuple[float, float]], most: int = POINTS_OF_A_CURVE) -> list[tuple[float, float]]:
    """At most `most` points: both ends, and the lowest and highest point of each interval, so that peaks are kept."""
    if len(points) <= most:
        return list(points)
    intervals = (most - 2) // 2
    kept = {0, len(points) - 1}
    for i in range(intervals):
        interval = range(i * len(points) // intervals, (i + 1) * len(points) // intervals)
        kept |= {min(interval, key=lambda j: points[j][1]), max(interval, key=lambda j: points[j][1])}
    return [points[j] for j in sorted(kept)]
