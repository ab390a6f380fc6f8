"""A table of numbers as a heat map, drawn by matplotlib, which is imported when the first one is drawn."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from alexnet_lab.pictures.chart import DPI, INK, PALE, as_image

CELL = (1.7, 0.62)
"""Width and height of a cell, in inches."""
LETTER = 0.085
"""Width of a letter of a label, in inches."""
FROM_DARK = 0.55
"""Share of the range from which the cell is dark, so that its text is white."""


@dataclass(frozen=True)
class HeatMap:
    """`values`, [rows, columns], NaN for an empty cell, and the text in each cell."""

    values: Sequence[Sequence[float]]
    texts: Sequence[Sequence[str]]
    rows: Sequence[str]
    columns: Sequence[str]
    x: str
    """The name of the columns' axis."""
    y: str
    title: str
    scale: str
    """The name of the values, with their unit."""
    dark_is_large: bool = True


def heat_map(shown: HeatMap) -> Image.Image:
    """Draw the cells with their texts; texts are drawn as they are, without TeX."""
    from matplotlib.figure import Figure

    width = max(CELL[0], *(LETTER * max(map(len, text.split("\n"))) for line in shown.texts for text in line))
    margin = 1.7 + LETTER * max(map(len, shown.rows))
    is_slanted = max(map(len, shown.columns)) * LETTER > width
    above = 1.3 + (LETTER * 0.5 * max(map(len, shown.columns)) if is_slanted else 0)
    size = (max(margin + width * len(shown.columns), 5), above + CELL[1] * len(shown.rows))
    figure = Figure(size, dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    colours = axes.imshow(shown.values, cmap="Blues" if shown.dark_is_large else "Blues_r", aspect="auto")
    known = [value for line in shown.values for value in line if not math.isnan(value)]
    low, high = min(known), max(known)
    for row, line in enumerate(shown.values):
        for column, value in enumerate(line):
            part = 0.0 if math.isnan(value) or low == high else (value - low) / (high - low)
            dark = (part if shown.dark_is_large else 1 - part) > FROM_DARK and low < high and not math.isnan(value)
            style: Any = {"color": "white" if dark else INK, "fontsize": 9, "parse_math": False}
            axes.text(column, row, shown.texts[row][column], ha="center", va="center", **style)
    if low == high:
        colours.set_clim(low - 1, low + 1)
    _label(axes, shown, 30 if is_slanted else 0)
    bar = figure.colorbar(colours, ax=axes, pad=0.02)
    bar.set_label(shown.scale, color=INK, parse_math=False)
    bar.ax.tick_params(colors=PALE)
    bar.outline.set_visible(False)
    return as_image(figure)


def _label(axes, shown: HeatMap, slant: float) -> None:  # type: ignore[no-untyped-def]
    axes.set_xticks(range(len(shown.columns)), shown.columns, rotation=slant, ha="right" if slant else "center")
    axes.set_yticks(range(len(shown.rows)), shown.rows)
    for text in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        text.set_parse_math(False)
    axes.set_xlabel(shown.x, color=INK, parse_math=False)
    axes.set_ylabel(shown.y, color=INK, parse_math=False)
    axes.set_title(shown.title, color=INK, fontsize=12, parse_math=False)
    axes.tick_params(colors=INK, length=0)
    axes.spines[:].set_visible(False)
