"""A drawing to scale of the maps of networks, in the manner of figure 2 of Krizhevsky, Sutskever, Hinton (2012).

Each map is a box: its height and its receding edge are the map's height and width, its length to the right the
channels. Receding edges are drawn at half length. A kernel is a box in the map that it reads; four lines join it to
the point of the next map that it computes. Linear layers are bars. All lengths are linear in what they stand for, with
one scale for sides, one for channels and one for features; scale bars in the drawing give them.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from alexnet_lab.models.table import LayerRow, total_macs
from alexnet_lab.pictures.boxes import SORTS, Scale, Solid, connections, numbers, solid_box, sort_of
from alexnet_lab.pictures.stages import BOTH, Stage, sides, stages_of
from alexnet_lab.pictures.svg import STYLE, digits, label, rectangle, width_of, xml

MARGIN, GAP, LINE = 24, 14, 17
LEAST_WIDTH = 860
BOLD = 1.12
"""Width of bold letters, in widths of others."""
NUMBER = 16
"""Height of the number above or below a box."""


class Network(NamedTuple):
    title: str
    image: tuple[int, ...]
    """(C, H, W) of its input."""
    layers: Sequence[LayerRow]
    parameters: int


def architecture(networks: Sequence[Network]) -> str:
    """The drawing as an SVG document: the networks below each other at the same scale.

    The same networks give the same bytes.
    """
    panels = [stages_of(network.image, network.layers) for network in networks]
    scale = Scale.of(panels)
    columns = [_column_widths(stages, scale) for stages in panels]
    titles = [BOLD * width_of(network.title, 19) for network in networks]
    width = 2 * MARGIN + max(LEAST_WIDTH, *titles, *(sum(widths) for widths in columns))
    body: list[str] = []
    top = float(MARGIN)
    for network, stages, widths in zip(networks, panels, columns, strict=True):
        spread = [one + (width - 2 * MARGIN - sum(widths)) / len(widths) for one in widths]
        lines, top = _panel(network, stages, spread, scale, top)
        body += lines
    lines, height = _legend(panels, scale, width, top)
    names = "; ".join(network.title for network in networks)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {digits(width)} {digits(height)}" role="img">',
            f"<title>{xml(names)}</title>",
            f"<desc>{xml(_description(panels))}</desc>",
            f"<style>{STYLE}</style>",
            f'<rect width="{digits(width)}" height="{digits(height)}" fill="#fff"/>',
            *body,
            *lines,
            "</svg>\n",
        ]
    )


def _panel(
    network: Network, stages: Sequence[Stage], columns: Sequence[float], scale: Scale, top: float
) -> tuple[list[str], float]:
    """One network's lines of SVG below `top`, and where they end."""
    counts = f"{network.parameters:,} parameters, {total_macs(network.layers):,} multiply-accumulates per image"
    lines = [label(network.title, MARGIN, top + 16, "b t"), label(counts, MARGIN, top + 38)]
    top += 54
    solids = _placed(stages, columns, scale, top + 6)
    every = [solid for row in solids for solid in row]
    notes_top = max(solid.at(0, 0, 0).y for solid in every) + NUMBER + 14
    bottom = notes_top + LINE * (2 + max(len(stage.notes) for stage in stages))
    left = float(MARGIN)
    captions: list[str] = []
    for place, (stage, column) in enumerate(zip(stages, columns, strict=True)):
        if place % 2 == 0:
            lines.append(rectangle(left, top, column, bottom - top, "z"))
        captions += _caption(stage, left + column / 2, notes_top + 12)
        left += column
    for solid in every:
        lines += solid_box(solid)
    for before, after in pairwise(solids):
        lines += connections(before, after)
    lines += [one for solid in every for one in numbers(solid)]
    return lines + captions, bottom + 22


def _column_widths(stages: Sequence[Stage], scale: Scale) -> list[float]:
    found = []
    for stage in stages:
        captions = [BOLD * width_of(stage.name), *(BOLD * width_of(fact) for fact in _facts(stage) if fact == BOTH)]
        captions += map(width_of, _facts(stage))
        found.append(GAP + max(Solid(stage, 0, scale).extent[0], *captions))
    return found


def _placed(stages: Sequence[Stage], columns: Sequence[float], scale: Scale, top: float) -> list[list[Solid]]:
    """The solids of each stage, one per row, in the middle of its column; two rows share the height."""
    heights = {1: 0.0, 2: 0.0}
    for stage in stages:
        tallest = Solid(stage, 0, scale).extent[1] + 2 * NUMBER + 6
        heights[stage.rows] = max(heights[stage.rows], tallest)
    middle = top + max(heights[1], 2 * heights[2]) / 2
    found, left = [], float(MARGIN)
    for stage, column in zip(stages, columns, strict=True):
        apart = heights[2] / 2 if stage.rows == 2 else 0.0
        place = left + (column - Solid(stage, 0, scale).extent[0]) / 2
        middles = (middle - apart, middle + apart)[: stage.rows]
        found.append([Solid(stage, row, scale, place, each) for row, each in enumerate(middles)])
        left += column
    return found


def _caption(stage: Stage, middle: float, top: float) -> list[str]:
    lines = [label(stage.name, middle, top, "c b")]
    for place, fact in enumerate(_facts(stage), start=1):
        lines.append(label(fact, middle, top + LINE * place, _style_of(fact, stage)))
    return lines


def _style_of(fact: str, stage: Stage) -> str:
    """The kernel's size has the colour of the drawn kernel."""
    return "c r" if stage.window and fact == sides(stage.window) else "c b" if fact == BOTH else "c"


def _facts(stage: Stage) -> tuple[str, ...]:
    return sides(stage.shape), *stage.notes


def _legend(panels: Iterable[Sequence[Stage]], scale: Scale, width: float, top: float) -> tuple[list[str], float]:
    """Scale bars and colours in lines of at most `width`, and where they end."""
    stages = [stage for panel in panels for stage in panel]
    units = [("pixels of height or width", scale.side), ("channels", scale.channel)]
    units += [("features", scale.feature)] if any(not stage.is_map for stage in stages) else []
    items = [_scale_bar(name, unit) for name, unit in units]
    items += [_key(sort, name) for sort, name in SORTS.items() if any(sort_of(stage) == sort for stage in stages)]
    if any(stage.window for stage in stages):
        items.append((rectangle(0, -11, 12, 12, "k") + label("kernel", 18, 0), 18 + width_of("kernel")))
    remarks = ["Lengths are linear in what they stand for; receding edges (widths) are drawn at half length."]
    if not all(stage.follows for stage in stages):
        remarks.append("Layers in the order of execution. Sums and concatenations of branches are not drawn.")
    lines, left, line = [], float(MARGIN), top + 12
    for item, length in items:
        if left > MARGIN and left + length > width - MARGIN:
            left, line = float(MARGIN), line + 26
        lines.append(f'<g transform="translate({digits(left)} {digits(line)})">{item}</g>')
        left += length + 26
    for remark in remarks:
        line += 26
        lines.append(label(remark, MARGIN, line))
    return lines, line + MARGIN


def _scale_bar(name: str, unit: float) -> tuple[str, float]:
    """A bar of a round number of units, 25 to 63 long, with its name, and the length of both."""
    number = _round_number(63 / unit)
    length = number * unit
    words = f"{number:,} {name}"
    bar = f'<path class="s" d="M0 -9V1M0 -4H{digits(length)}M{digits(length)} -9V1"/>'
    return bar + label(words, length + 8, 0), length + 8 + width_of(words)


def _round_number(most: float) -> int:
    """The largest of 1, 2, 5, 10, 20, 50, ... that is at most `most`."""
    power = 10 ** math.floor(math.log10(max(most, 1)))
    return max(int(power * one) for one in (1, 2, 5) if one == 1 or power * one <= most)


def _key(sort: str, name: str) -> tuple[str, float]:
    return f'<g class="{sort}">{rectangle(0, -11, 16, 12, "side")}</g>' + label(name, 22, 0), 22 + width_of(name)


def _description(panels: Iterable[Sequence[Stage]]) -> str:
    """The drawing in words, for screen readers."""
    return ". ".join("; ".join(f"{one.name} {', '.join(_facts(one))}" for one in stages) for stages in panels)
