"""Several networks in one table: their totals with ratios to the first, and their layers beside each other."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from torch.nn.modules import activation

from alexnet_lab.description import network
from alexnet_lab.description.network import Described, Titles
from alexnet_lab.models.table import BYTES, LayerRow
from alexnet_lab.report import text

WIDTH = 160
"""Columns of a pipe."""
Key = tuple[str, int, str, int]
"""The part of the network that a layer begins or follows, and what it is there: see `_keys`."""
LARGE = 100
SORTS = {"Conv": "convolution", "Linear": "linear", "Pool": "pool", "Norm": "norm", "Pad": "pad"}
ACTIVATIONS = {*activation.__all__}


def names(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Short names that tell networks apart: the function's name, and the settings in which namesakes differ."""
    targets = [str(one["_target_"]).rpartition(".")[2] for one in settings]
    found = []
    for target, one in zip(targets, settings, strict=True):
        namesakes = [other for name, other in zip(targets, settings, strict=True) if name == target]
        differing = [key for key in one if any(other.get(key) != one[key] for other in namesakes)]
        own = [] if len(set(targets)) == 1 and differing else [target]
        found.append(" ".join([*own, *(f"{key}={one[key]}" for key in differing)]))
    return found


def ratios(networks: Sequence[Described]) -> list[dict[str, float | None]]:
    """Of each network to the first; None for a division by 0."""
    first = _totals(networks[0])
    return [{name: _ratio(number, first[name]) for name, number in _totals(one).items()} for one in networks]


def _totals(network: Described) -> dict[str, int]:
    outputs = network.memory["layer outputs of one image"]
    return {"parameters": network.parameters, "macs": network.macs, "layer outputs of one image": outputs}


def _ratio(number: int, first: int) -> float | None:
    return number / first if first else None


def totals_table(networks: Sequence[Described]) -> tuple[Titles, list[list[str]]]:
    """One row per network: sizes and memory, and the ratios to the first network."""
    titles = [
        "image",
        "classes",
        "parameters",
        "ratio",
        "MACs",
        "ratio",
        "bytes of\nparameters",
        "weights,\ngradients,\nmomentum",
    ]
    titles += ["layer outputs\nof one image", "ratio"]
    rows = []
    for one, ratio in zip(networks, ratios(networks), strict=True):
        parameters, macs, outputs = map(_text, ratio.values())
        memory = one.memory
        row = [one.name, network.shape(one.image), str(one.classes)]
        row += [f"{one.parameters:,}", parameters, f"{one.macs:,}", macs, f"{BYTES * one.parameters:,}"]
        row += [network.megabytes(memory[name]) for name in list(memory)[-2:]]
        rows.append([*row, outputs])
    return [("network", False), *((title, True) for title in titles)], rows


def layers_table(networks: Sequence[Described]) -> tuple[Titles, list[list[str]]]:
    """One row per layer: what it is, its output and receptive field."""
    titles: Titles = [("layer", False), *((name, False) for name in _headings(networks))]
    for quantity in ("output", "receptive\nfield"):
        titles += [(f"{quantity}\n{name}", True) for name in _headings(networks)]
    rows = []
    for name, layers in _beside(networks):
        cells = [name, *(_layer(layer) if layer else "" for layer in layers)]
        cells += [network.shape(layer.output) if layer else "" for layer in layers]
        cells += [network.short(layer.receptive_field) if layer else "" for layer in layers]
        rows.append(cells)
    return titles, rows


def counts_table(networks: Sequence[Described]) -> tuple[Titles, list[list[str]]]:
    """One row per layer with parameters or MACs, and the ratios to the first network."""
    titles: Titles = [("layer", False)]
    for quantity in ("parameters", "MACs"):
        titles += [(f"{quantity}\n{name}", True) for name in _headings(networks)]
        titles += [(f"ratio\n{name}", True) for name in _headings(networks)[1:]]
    rows = []
    for name, layers in _beside(networks):
        cells = [name]
        for quantity in ("parameters", "macs"):
            numbers = [getattr(layer, quantity) if layer else 0 for layer in layers]
            cells += [network.count(number) for number in numbers]
            cells += [_text(_ratio(number, numbers[0]) if number else None) for number in numbers[1:]]
        if any(cells[1:]):
            rows.append(cells)
    return titles, rows


def _headings(networks: Sequence[Described]) -> list[str]:
    return [one.name.replace(" ", "\n") for one in networks]


def _beside(networks: Sequence[Described]) -> Iterator[tuple[str, list[LayerRow | None]]]:
    """The layers of the networks that have the same part, see `_keys`, and their names."""
    found = [dict(zip(_keys(one.rows), one.rows, strict=True)) for one in networks]
    for key in _merged([list(one) for one in found]):
        layers = [one.get(key) for one in found]
        yield "/".join(dict.fromkeys(layer.name for layer in layers if layer)), layers


def _layer(row: LayerRow) -> str:
    """`Conv2d 11x11/4 pad 2`"""
    kernel, stride, padding = network.window(row)
    parts = [row.kind, kernel + (f"/{stride}" if stride not in ("", "1") else "")]
    parts += [f"pad {padding}"] if padding not in ("", "0") else []
    parts += [f"groups {row.groups}"] if (row.groups or 1) > 1 else []
    return " ".join(part for part in parts if part)


def _text(ratio: float | None) -> str:
    if ratio is None:
        return ""
    return f"{ratio:,.0f}" if ratio >= LARGE else f"{ratio:.3g}"


def _keys(rows: Sequence[LayerRow]) -> Iterator[Key]:
    """The nth convolution, the nth linear layer, and what follows them until the next one, counted there by sort."""
    part, number = "convolution", 0
    seen: Counter[tuple[str, int, str]] = Counter()
    for row in rows:
        sort = _sort(row.kind)
        if sort in ("convolution", "linear"):
            number = number + 1 if sort == part else 1
            part = sort
        elif sort in ("Flatten", "in the loss"):
            part, number = ("linear", 0) if sort == "Flatten" else (sort, 0)
        place = (part, number, sort)
        seen[place] += 1
        yield (*place, seen[place])


def _sort(kind: str) -> str:
    """Kinds that take each other's place have the same sort."""
    sort = next((sort for part, sort in SORTS.items() if part in kind), kind)
    return "act" if kind in ACTIVATIONS else sort


def _merged(networks: Sequence[Sequence[Key]]) -> list[Key]:
    """The keys of all networks in the order of the first; the others' own keys after those they follow."""
    merged: list[Key] = []
    for keys in networks:
        place = 0
        for key in keys:
            if key in merged:
                place = merged.index(key) + 1
            else:
                merged.insert(place, key)
                place += 1
    return merged


def show(networks: Sequence[Described], console: Console) -> None:
    """Print the totals and the layers."""
    for titles, rows in (totals_table(networks), layers_table(networks), counts_table(networks)):
        text.print_parts(titles, rows, console, pipe=WIDTH)


def markdown(networks: Sequence[Described]) -> list[str]:
    """The lines of both tables."""
    lines = ["## " + ", ".join(one.title for one in networks), ""]
    for titles, rows in (totals_table(networks), layers_table(networks), counts_table(networks)):
        flat = [(title.replace("\n", " "), right) for title, right in titles]
        lines += [*text.markdown_table(flat, rows), ""]
    return lines
