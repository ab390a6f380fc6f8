"""Boxes and bars in perspective for the stages of a network, and what joins them.

Lengths are linear in what they stand for; receding edges are drawn at half length.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from alexnet_lab.pictures.stages import INPUT, POOLS, Stage, sides
from alexnet_lab.pictures.svg import Point, digits, label, polygon, xml

ANGLE = math.radians(35)
RECEDES = 0.5 * math.cos(ANGLE), 0.5 * math.sin(ANGLE)
"""Right and up, for a receding edge of length 1."""
BAR = 14
SORTS = {
    INPUT: "input",
    "convolution": "convolution",
    "pool": "pooling",
    "dense": "fully connected (dense)",
    "other": "other",
}


def sort_of(stage: Stage) -> str:
    """The stage's class in the drawing, one of `SORTS`."""
    if stage.kind == INPUT:
        return INPUT
    if stage.kind in POOLS or "Pool" in stage.kind:
        return "pool"
    return {"Conv2d": "convolution", "Linear": "dense"}.get(stage.kind, "other")


@dataclass(frozen=True)
class Scale:
    """Units of the drawing."""

    side: float
    """Per pixel of a map's height or width."""
    channel: float
    feature: float

    @classmethod
    def of(cls, networks: Iterable[Sequence[Stage]]) -> "Scale":
        """The scale at which the largest box and bar, and the longest network, have a good size."""
        side, channel, feature = [math.inf], [4.0], [1.0]
        for stages in networks:
            maps = [stage for stage in stages if stage.is_map]
            lengths = [max(stage.shape[1:]) for stage in maps]
            tallest = 420 if any(stage.rows > 1 for stage in stages) else 330
            side += [tallest / max(lengths), 75 * len(stages) / sum(lengths)] if maps else []
            channels = [stage.of_row(0) for stage in maps]
            channel += [90 / max(channels), 22 * len(stages) / sum(channels)] if maps else []
            feature += [200 / stage.of_row(0) for stage in stages if not stage.is_map]
        return cls(min(side), min(channel), min(feature))


@dataclass(frozen=True)
class Solid:
    """A stage's box or bar in one row of the drawing."""

    stage: Stage
    row: int
    scale: Scale
    left: float = 0.0
    middle: float = 0.0

    @property
    def size(self) -> tuple[float, float, float]:
        """Length to the right, receding length (before halving) and height, in units of the drawing."""
        amount = self.stage.of_row(self.row)
        if not self.stage.is_map:
            return BAR, 0.0, amount * self.scale.feature
        height, width = self.stage.shape[1:]
        return amount * self.scale.channel, width * self.scale.side, height * self.scale.side

    @property
    def extent(self) -> tuple[float, float]:
        """Width and height on the paper."""
        length, recedes, height = self.size
        return length + recedes * RECEDES[0], height + recedes * RECEDES[1]

    def at(self, along: float, back: float, up: float) -> Point:
        """The point at these parts, 0 to 1, of the box's length, receding edge and height."""
        length, recedes, height = self.size
        bottom = self.middle + self.extent[1] / 2
        return Point(
            self.left + along * length + back * recedes * RECEDES[0],
            bottom - up * height - back * recedes * RECEDES[1],
        )


def solid_box(solid: Solid) -> list[str]:
    """A box with its three visible faces, or a bar; its title is shown by browsers under the pointer."""
    stage, at = solid.stage, solid.at
    shape = sides((stage.of_row(solid.row), *(stage.shape[1:] if stage.is_map else ())))
    head = f'<g class="{sort_of(stage)}"><title>{xml(f"{stage.name}: {shape}")}</title>'
    front = polygon([at(0, 0, 0), at(1, 0, 0), at(1, 0, 1), at(0, 0, 1)], "front")
    if not stage.is_map:
        return [head + front + "</g>"]
    top = polygon([at(0, 0, 1), at(1, 0, 1), at(1, 1, 1), at(0, 1, 1)], "top")
    side = polygon([at(1, 0, 0), at(1, 1, 0), at(1, 1, 1), at(1, 0, 1)], "side")
    return [head + top + front + side + "</g>"]


def connections(before: Sequence[Solid], after: Sequence[Solid]) -> list[str]:
    """What the solids of a stage read: a kernel and its lines, or a band for all that a linear layer reads."""
    stage = after[0].stage
    if not stage.follows:
        return []
    everything = stage.reads_both or len(before) == 1 or len(after) == 1
    lines = []
    for source in before:
        targets = [one for one in after if everything or one.row == source.row]
        if stage.window and source.stage.is_map:
            lines += _kernel(source, stage, targets)
        else:
            lines += [_band(source, target) for target in targets]
    return lines


def _kernel(source: Solid, stage: Stage, targets: Iterable[Solid]) -> list[str]:
    """The kernel in the middle of the map that it reads, over its last channels, and its lines to the next map."""
    height, width = (min(one, side) / side for one, side in zip(stage.window, source.stage.shape[1:], strict=True))
    (front, back), (low, high) = ((0.5 - part / 2, 0.5 + part / 2) for part in (width, height))
    first = 1 - min(1, stage.depth / source.stage.of_row(source.row))
    at = source.at
    side = [at(1, front, low), at(1, back, low), at(1, back, high), at(1, front, high)]
    lines = [
        polygon([at(first, front, low), at(1, front, low), at(1, front, high), at(first, front, high)], "k"),
        polygon([at(first, front, high), at(1, front, high), at(1, back, high), at(first, back, high)], "k"),
        polygon(side, "k"),
    ]
    for target in targets:
        end = target.at(0, 0.5, 0.5)
        strokes = "".join(f"M{digits(corner.x)} {digits(corner.y)}L{digits(end.x)} {digits(end.y)}" for corner in side)
        lines.append(f'<path class="l" d="{strokes}"/>')
    return lines


def _band(source: Solid, target: Solid) -> str:
    """From all that a layer reads to all that it computes."""
    back, front = (0.5 if solid.stage.is_map else 0.0 for solid in (source, target))
    corners = [source.at(1, back, 1), target.at(0, front, 1), target.at(0, front, 0), source.at(1, back, 0)]
    return polygon(corners, "f" if sort_of(target.stage) == "dense" else "g")


def numbers(solid: Solid) -> list[str]:
    """Like the paper's: height and width above a box and channels below it; features above a bar."""
    stage, at = solid.stage, solid.at
    amount, middle = str(stage.of_row(solid.row)), (at(0, 0, 0).x + at(1, 0, 0).x) / 2
    if not stage.is_map:
        return [label(amount, middle, at(0, 0, 1).y - 5, "c n h")]
    corner, bottom = at(1, 1, 1), at(0, 0, 0).y
    over = label(sides(stage.shape[1:]), corner.x, corner.y - 5, "e n h")
    return [over, label(amount, middle, bottom + 13, "c n h")]
