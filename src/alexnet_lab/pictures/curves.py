"""The learning curves of one run: loss, top-1 and top-5 of training and validation, and the test values."""

import math
from collections.abc import Mapping, Sequence

from PIL import Image

from alexnet_lab.pictures.chart import Line, Panel, chart

TITLES = {"loss": "loss (cross-entropy)", "top1": "top-1 accuracy", "top5": "top-5 accuracy"}
STYLES = {"train": 0, "val": 1, "test": 2, "step": 8}
"""The colour of each line, and its dash modulo the number of dashes."""
STEP, SINCE_LOGGED = "train/loss_step", "train, since the last logged step"


def curves_picture(rows: Sequence[Mapping[str, float]]) -> Image.Image | None:
    """The curves in `rows`, those of `metrics.csv`, a panel per metric; None if there is nothing to draw."""
    found = panels(rows)
    return chart(found) if found else None


def panels(rows: Sequence[Mapping[str, float]]) -> list[Panel]:
    """Loss, top-1 and top-5 over epochs, or over optimizer steps while there are less than two epochs.

    A value is drawn where it was measured: a validation in the middle of an epoch, at its fraction. A test value is a
    horizontal line with the value in the legend. A top-5 that is always 1 is left out, as of up to five classes.
    """
    ends = [row["step"] / (row["epoch"] + 1) for row in rows if "train/loss" in row]
    steps_per_unit = ends[0] if len(ends) > 1 else 1.0
    axis = "epoch" if len(ends) > 1 else "optimizer step"
    last = max((row["step"] / steps_per_unit for row in rows), default=0.0)
    found = []
    for name, title in TITLES.items():
        known = {split: _points(rows, f"{split}/{name}", steps_per_unit) for split in ("train", "val")}
        lines = [_line(split, split, points) for split, points in known.items() if points]
        if name == "loss" and len(ends) < 2 and (points := _points(rows, STEP, steps_per_unit)):
            lines.append(_line(SINCE_LOGGED, "step", points, marked=False))
        test = _points(rows, f"test/{name}", steps_per_unit)
        if test:
            value = test[-1][1]
            lines.append(_line(f"test {value:.4f}", "test", [(0.0, value), (last, value)], marked=False))
        tells = name != "top5" or any(value != 1.0 for line in lines for value in line.y)
        if lines and tells:
            alone = lines[0].label if len(lines) == 1 else ""  # such a panel has no legend
            found.append(Panel(axis, title, lines, alone, x_range=(0.0, 1.03 * max(last, 1.0)), whole_x=True))
    return found


def _points(rows: Sequence[Mapping[str, float]], name: str, steps_per_unit: float) -> list[tuple[float, float]]:
    """The finite values of a metric with their places on the x-axis."""
    return [(row["step"] / steps_per_unit, row[name]) for row in rows if math.isfinite(row.get(name, math.nan))]


def _line(label: str, split: str, points: Sequence[tuple[float, float]], marked: bool = True) -> Line:
    style = STYLES[split]
    return Line(label, [x for x, _ in points], [y for _, y in points], colour=style, dash=style, marked=marked)
