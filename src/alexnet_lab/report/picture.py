"""The comparison as a picture: the pivot as a heat map, and learning curves, the mean over seeds with its spread."""

import io
import math
import statistics
import textwrap
from collections.abc import Iterable, Sequence

from PIL import Image

from alexnet_lab.errors import UserError
from alexnet_lab.pictures.chart import COLOURS, Line, Panel, chart
from alexnet_lab.pictures.heat_map import HeatMap, heat_map
from alexnet_lab.report import pivot as pivots
from alexnet_lab.report.curves import Curves, Metric, Points, metrics, points
from alexnet_lab.report.pivot import Pivot
from alexnet_lab.report.table import Comparison
from alexnet_lab.runs.groups import Group

SHOWN = 12
"""Most groups in the picture."""
TITLES = {
    "train/loss": "training loss (cross-entropy)",
    "train/top1": "training top-1 accuracy",
    "train/top5": "training top-5 accuracy",
    "val/loss": "validation loss (cross-entropy)",
    "val/top1": "validation top-1 accuracy",
    "val/top5": "validation top-5 accuracy",
}
AXES = {"epoch": "epoch", "step": "optimizer step"}
LONGEST = 60
"""Most letters of a group's name in the legend."""


def png(comparison: Comparison) -> bytes:
    """The picture as a PNG. Raises UserError if there is nothing to draw."""
    parts = [draw(comparison) for draw in (_pivot, _curves)]
    drawn = [part for part in parts if part is not None]
    if not drawn:
        raise UserError("out=*.png: these runs have no learning curves")
    whole = Image.new("RGB", (max(one.width for one in drawn), sum(one.height for one in drawn)), "white")
    top = 0
    for one in drawn:
        whole.paste(one, ((whole.width - one.width) // 2, top))
        top += one.height
    file = io.BytesIO()
    whole.save(file, "PNG")
    return file.getvalue()


def _pivot(comparison: Comparison) -> Image.Image | None:
    return heat_map(map_of(comparison.pivot)) if comparison.pivot and comparison.pivot.cells else None


def _curves(comparison: Comparison) -> Image.Image | None:
    panels = panels_of(comparison.groups[:SHOWN])
    if not panels:
        return None
    number, spread = len(comparison.groups), any(line.low for panel in panels for line in panel.lines)
    title = "Learning curves" + (", mean over seeds ± standard deviation" if spread else "")
    title += f": the first {SHOWN} of {number} by {comparison.sort}" if number > SHOWN else ""
    return chart(panels, title, legend_below=True)


def map_of(pivot: Pivot) -> HeatMap:
    """What the heat map shows."""
    cells = [[pivot.cells.get((row, column)) for column in pivot.columns] for row in pivot.rows]
    names = [", ".join(keys) for keys in pivot.keys]
    return HeatMap(
        values=[[cell.sample.mean if cell else math.nan for cell in line] for line in cells],
        texts=[[pivots.cell_text(pivot, cell, "\n").replace(" (n", "\n(n", 1) for cell in line] for line in cells],
        rows=[", ".join(values) or pivot.figure.title for values in pivot.rows],
        columns=[", ".join(values) or pivot.figure.title for values in pivot.columns],
        x=names[1],
        y=names[0],
        title="\n".join([pivots.title(pivot), *(textwrap.fill(note, 70) for note in [*pivots.notes(pivot)][1:])]),
        scale=f"{pivot.figure.title}" + (" (fraction of 1)" if pivot.figure.key.endswith(("top1", "top5")) else ""),
        dark_is_large=pivot.figure.better == "larger",
    )


def panels_of(groups: Sequence[Group]) -> list[Panel]:
    """A panel for each main metric that a run has logged; each group has its colour in all of them."""
    known = [Curves(group.name, [(run.name, points(run)) for run in group.runs]) for group in groups]
    logged = {metric.name: metric for metric in metrics(known)}
    return [
        Panel(AXES[metric.over], title, list(_lines(known, metric)), whole_x=True)
        for name, title in TITLES.items()
        if (metric := logged.get(name))
    ]


def _lines(groups: Sequence[Curves], metric: Metric) -> Iterable[Line]:
    for position, group in enumerate(groups):
        curves = [_curve(run[metric.name], metric.over) for _, run in group.runs if metric.name in run]
        shared = sorted(set.intersection(*map(set, curves))) if curves else []
        if not shared:
            continue
        values = [[curve[x] for curve in curves] for x in shared]
        means = [statistics.fmean(one) for one in values]
        spreads = [statistics.stdev(one) for one in values] if len(curves) > 1 else []
        yield Line(
            group.name if len(group.name) <= LONGEST else f"{group.name[: LONGEST - 3]}...",
            shared,
            means,
            colour=position,
            dash=position // len(COLOURS),
            low=[mean - spread for mean, spread in zip(means, spreads, strict=False)],
            high=[mean + spread for mean, spread in zip(means, spreads, strict=False)],
        )


def _curve(found: Points, over: str) -> dict[float, float]:
    """The value at each epoch or step."""
    return dict(zip(found.epoch if over == "epoch" else found.step, found.value, strict=True))
