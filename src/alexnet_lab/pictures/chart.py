"""Line charts in panels, drawn by matplotlib, which is imported when the first chart is drawn."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from PIL import Image

COLOURS = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2", "#db2777", "#65a30d", "#475569", "#92400e")
DASHES = ("-", "--", "-.", ":")
INK, PALE, GRID = "#1b1b1b", "#6b7280", "#e5e7eb"
PANEL = (4.6, 3.2)
"""Width and height of a panel, in inches."""
DPI = 110
LEGEND_LETTER = 0.078
"""Width of a letter in the legend, in inches."""
MARKERS_UP_TO = 30
"""Lines of at most this many points show each point."""


@dataclass(frozen=True)
class Line:
    """One curve; x and y are as long as each other."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    colour: int = 0
    """Index in `COLOURS`, taken modulo their number."""
    dash: int = 0
    """Index in `DASHES`."""
    marked: bool = True
    """Whether the points of a short line are marked."""
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    """The edges of a band around the line, as long as x; empty for no band."""


@dataclass(frozen=True)
class Panel:
    """The lines of one pair of axes."""

    x: str
    """The name of the x-axis, with its unit."""
    y: str
    lines: Sequence[Line]
    title: str = ""
    log_x: bool = False
    log_y: bool = False
    marks: Sequence[tuple[float, str]] = field(default_factory=tuple)
    """Vertical lines: their x, and a text above the axes."""
    levels: Sequence[tuple[float, str]] = field(default_factory=tuple)
    """Dashed horizontal lines: their y, and a text at their right end."""
    y_range: tuple[float | None, float | None] = (None, None)
    x_range: tuple[float | None, float | None] = (None, None)
    whole_x: bool = False
    """Whether x is a count, whose ticks are whole numbers."""


def chart(panels: Sequence[Panel], title: str = "", columns: int = 3, legend_below: bool = False) -> Image.Image:
    """Draw the panels side by side, at most `columns` in a row. Texts are drawn as they are, without TeX.

    `legend_below`: one legend for all panels, whose lines of one label look the same.
    """
    from matplotlib.figure import Figure

    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    width, height = PANEL[0] * columns, PANEL[1] * rows + (0.35 if title else 0)
    longest = max(len(line.label) for panel in panels for line in panel.lines) if legend_below else 0
    beside = max(1, min(4, int(width / (0.7 + LEGEND_LETTER * longest))))
    labels = {line.label for panel in panels for line in panel.lines}
    below = 0.25 + 0.2 * -(-len(labels) // beside) if legend_below else 0
    figure = Figure((width, height + below), dpi=DPI, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1)  # type: ignore[union-attr,call-arg]
    if title:
        figure.suptitle(title, color=INK, fontsize=12, parse_math=False)
    known: dict[str, Any] = {}
    for number, panel in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, columns, number)
        _draw(axes, panel)
        known.update(zip([line.label for line in panel.lines], axes.get_lines(), strict=False))
        if not legend_below and len(panel.lines) > 1:
            _plain(axes.legend(frameon=False, fontsize=8))
    if legend_below:
        place: Any = {"loc": "outside lower center", "ncols": beside}
        _plain(figure.legend([*known.values()], [*known], frameon=False, fontsize=9, **place))
    return as_image(figure)


def as_image(figure) -> Image.Image:  # type: ignore[no-untyped-def]
    """Draw a figure of matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    drawn = BytesIO()
    FigureCanvasAgg(figure).print_png(drawn)
    return Image.open(drawn).convert("RGB")


def _plain(legend) -> None:  # type: ignore[no-untyped-def]
    for text in legend.get_texts():
        text.set_parse_math(False)


def _draw(axes, panel: Panel) -> None:  # type: ignore[no-untyped-def]
    for line in panel.lines:
        marker = "o" if line.marked and len(line.x) <= MARKERS_UP_TO else None
        style = {"color": COLOURS[line.colour % len(COLOURS)], "linestyle": DASHES[line.dash % len(DASHES)]}
        axes.plot(line.x, line.y, label=line.label, marker=marker, markersize=3.5, linewidth=1.6, **style)
        if line.low:
            axes.fill_between(line.x, line.low, line.high, color=style["color"], alpha=0.15, linewidth=0)
    for x, text in panel.marks:
        axes.axvline(x, color=PALE, linewidth=1, linestyle=":")
        axes.annotate(
            text, (x, 1), (0, 3), ("data", "axes fraction"), "offset points", ha="center", va="bottom", color=PALE,
            fontsize=8, parse_math=False,
        )  # fmt: skip
    for y, text in panel.levels:
        axes.axhline(y, color=PALE, linewidth=1, linestyle="--")
        axes.annotate(
            text, (1, y), (0, 3), ("axes fraction", "data"), "offset points", ha="right", color=PALE, fontsize=8,
            parse_math=False,
        )  # fmt: skip
    if panel.log_x:
        axes.set_xscale("log")
    if panel.log_y:
        axes.set_yscale("log")
    axes.set_ylim(*panel.y_range)
    axes.set_xlim(*panel.x_range)
    if panel.whole_x:
        axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel(panel.x, color=INK, parse_math=False)
    axes.set_ylabel(panel.y, color=INK, parse_math=False)
    axes.set_title(panel.title, color=INK, fontsize=11, parse_math=False, pad=18 if panel.marks else None)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(PALE)
    axes.tick_params(colors=PALE)
