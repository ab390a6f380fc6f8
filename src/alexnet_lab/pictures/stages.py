"""The parts of a drawing of a network: one stage per map or vector that a layer computes, with the notes below it.

Shapes: C channels, H W height and width; without the batch.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from alexnet_lab.models.table import LayerRow

TOWERS = 2
INPUT = "input"
BOTH, OWN = "both towers", "own tower"
"""Which maps of a network with towers a layer reads."""
TIMES = "\N{MULTIPLICATION SIGN}"
LONGEST = 22
SHORT = {
    "LocalResponseNorm": "LRN",
    "BatchNorm2d": "batch norm",
    "AdaptiveAvgPool2d": "adaptive mean",
    "Dropout": "dropout",
    "Softmax": "softmax",
}
"""Notes by the layer's class; others are noted by the class."""
POOLS = {"MaxPool2d": "max pooling", "AvgPool2d": "mean pooling"}


@dataclass(frozen=True)
class Stage:
    """One map [C, H, W], drawn as a box, or one vector, drawn as a bar."""

    name: str
    kind: str
    """The layer's class, or `input`."""
    shape: tuple[int, ...]
    notes: tuple[str, ...] = ()
    window: tuple[int, ...] = ()
    """(height, width) of the kernel in the stage before; empty without one."""
    depth: int = 0
    """Channels of the stage before that the kernel covers, those of both towers where it reads both."""
    follows: bool = True
    """Whether it reads the output of the stage before; not so where a branch begins."""
    rows: int = 1
    """2 if each tower has its half."""
    reads_both: bool = False
    """Whether each of its towers reads both towers of the stage before."""

    @property
    def is_map(self) -> bool:
        return len(self.shape) == 3

    @property
    def features(self) -> int:
        """Elements of a vector; also of an output that is neither a map nor a vector."""
        return math.prod(self.shape)

    def of_row(self, row: int) -> int:
        """Channels or features that a row of the drawing shows: a tower's part, the odd one in the first."""
        whole = self.shape[0] if self.is_map else self.features
        return whole if self.rows == 1 else (whole + 1 - row) // TOWERS


def stages_of(image: tuple[int, ...], layers: Sequence[LayerRow]) -> list[Stage]:
    """The stages in the order of execution; the first is the input, an image [C, H, W] of the shape `image`.

    Convolutions, pools, linear layers, and what else changes the shape make a stage; activations, normalisations,
    dropout, padding and flattening are notes of the stage before. In a network with towers, all stages but the input
    and the last are in two rows.
    """
    towers = _has_towers(layers)
    making = [layer for layer in layers if _makes_a_stage(layer)]
    stages = [Stage(INPUT, INPUT, image)]
    shape = image
    for layer in layers:
        if _makes_a_stage(layer):
            rows = TOWERS if towers and layer is not making[-1] else 1
            stages.append(_stage(layer, stages[-1], follows=_is_of_size(layer.input, shape), rows=rows))
        else:
            stages[-1] = replace(stages[-1], notes=(*stages[-1].notes, *_notes(layer, towers)))
        shape = layer.output
    return stages


def _is_of_size(found: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Also of another shape, since networks may reshape between their layers; an unknown one, `()`, passes."""
    return not found or math.prod(found) == math.prod(shape)


def sides(shape: Iterable[int]) -> str:
    """(96, 55, 55) -> 96×55×55"""
    return TIMES.join(map(str, shape))


def _has_towers(layers: Iterable[LayerRow]) -> bool:
    """Whether the convolutions have groups 2 or, to read both towers, 1."""
    groups = {layer.groups for layer in layers if layer.kind == "Conv2d"}
    return TOWERS in groups and groups <= {1, TOWERS}


def _makes_a_stage(layer: LayerRow) -> bool:
    if layer.kind in ("Conv2d", "Linear", *POOLS):
        return True
    return layer.output != layer.input and layer.kind != "Flatten" and "Pad" not in layer.kind


def _stage(layer: LayerRow, before: Stage, *, follows: bool, rows: int) -> Stage:
    convolves, dense = layer.kind == "Conv2d", layer.kind == "Linear"
    window = layer.kernel if convolves or layer.kind in POOLS else ()
    notes = [] if follows else ["reads", sides(layer.input)]
    if not convolves:
        notes.append("dense" if dense else POOLS.get(layer.kind, SHORT.get(layer.kind, _cut(layer.kind))))
    if window:
        notes += [sides(window), f"stride {_short(layer.stride)}"]
        notes += [f"pad {_short(layer.padding)}"] if any(layer.padding) else []
    both = before.rows == TOWERS and (dense or (convolves and layer.groups == 1))
    if both:
        notes.append(BOTH)
    elif before.rows == TOWERS and convolves:
        notes.append(OWN)
    elif (layer.groups or 1) > 1 and rows == 1:
        notes.append(f"{layer.groups} groups")
    depth = (layer.input or before.shape)[0] // (layer.groups or 1) if convolves else 1
    return Stage(_cut(layer.name), layer.kind, layer.output, tuple(notes), window, depth, follows, rows, both)


def _notes(layer: LayerRow, towers: bool) -> list[str]:
    if layer.kind == "Flatten":
        return [f"flatten {sides(layer.output)}"]
    if not layer.kind.isidentifier():
        return [layer.name, layer.kind]  # no layer of the network: the softmax in the loss
    if "Pad" in layer.kind:
        return [f"pad to {sides(layer.output[1:])}"]
    note = SHORT.get(layer.kind, _cut(layer.kind))
    over_both = towers and layer.kind == "LocalResponseNorm" and layer.groups != TOWERS
    return [f"{note} over", BOTH] if over_both else [note]


def _short(numbers: tuple[int, ...]) -> str:
    return str(numbers[0]) if len(set(numbers)) == 1 else sides(numbers)


def _cut(name: str) -> str:
    return name if len(name) <= LONGEST else f"…{name[1 - LONGEST :]}"
