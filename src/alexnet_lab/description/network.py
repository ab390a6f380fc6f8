"""A network layer by layer as a table, with its memory: on the terminal, as Markdown, CSV and JSON."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from alexnet_lab.models.table import BYTES, LayerRow, total_macs
from alexnet_lab.report import text

Titles = list[tuple[str, bool]]
TITLES: Titles = [
    *(("layer", False), ("kind", False), ("input", True), ("kernel", True), ("stride", True), ("padding", True)),
    *(("groups", True), ("output", True), ("receptive\nfield", True), ("parameters", True)),
    *(("bytes of\nparameters", True), ("MACs", True)),
]
"""As `text.header`."""
SHOWN_EXACTLY = 1000


@dataclass(frozen=True)
class Described:
    """A network for images of [C, H, W]."""

    name: str
    """Short; differs from those of the networks beside it."""
    title: str
    image: tuple[int, int, int]
    classes: int
    layers: Sequence[LayerRow]
    parameters: int
    """Those in no layer included; shared ones count once."""

    @property
    def rows(self) -> list[LayerRow]:
        """The layers, and the softmax that the loss applies to the logits."""
        logits = (self.classes,)
        seen = self.layers[-1].receptive_field if self.layers else ()
        return [*self.layers, LayerRow("softmax", "in the loss", (), (), (), None, logits, logits, seen, 0, 0)]

    @property
    def macs(self) -> int:
        return total_macs(self.layers)

    @property
    def memory(self) -> dict[str, int]:
        """Bytes in float32: of each copy of the parameters in training with SGD, and of all outputs for one image."""
        copies = dict.fromkeys(("weights", "gradients", "momentum"), BYTES * self.parameters)
        outputs = BYTES * sum(math.prod(row.output) for row in self.layers)
        return copies | {"weights, gradients and momentum": sum(copies.values()), "layer outputs of one image": outputs}


def cells(network: Described) -> Iterator[list[str]]:
    """The cells of each row for `TITLES`; the last row has the totals."""
    for row in network.rows:
        yield [
            *(row.name, row.kind, shape(row.input), *window(row), str(row.groups or ""), shape(row.output)),
            *(short(row.receptive_field), count(row.parameters), count(row.bytes), count(row.macs)),
        ]
    totals = (network.parameters, BYTES * network.parameters, network.macs)
    yield ["total", *[""] * 8, *(f"{number:,}" for number in totals)]


def window(row: LayerRow) -> list[str]:
    """Kernel, stride and padding."""
    return ["x".join(map(str, row.kernel)), short(row.stride), short(row.padding)]


def shape(numbers: tuple[int, ...]) -> str:
    return " x ".join(map(str, numbers))


def short(numbers: tuple[int, ...]) -> str:
    """A single number if all sides are equal."""
    return str(numbers[0]) if len(set(numbers)) == 1 else ",".join(map(str, numbers))


def count(number: int) -> str:
    return f"{number:,}" if number else ""


def megabytes(size: int) -> str:
    """Millions of bytes, with three digits."""
    return f"{size / 1e6:.3g} MB" if size < SHOWN_EXACTLY * 1e6 else f"{size / 1e6:,.0f} MB"


def memory_lines(network: Described) -> list[str]:
    """Its memory, one line each."""
    return ["memory in float32:", *(f"  {name}: {megabytes(size)}" for name, size in network.memory.items())]


def markdown(network: Described) -> list[str]:
    """The lines of its title, table and memory."""
    titles = [(title.replace("\n", " "), right) for title, right in TITLES]
    heading, *memory = memory_lines(network)
    table = text.markdown_table(titles, cells(network))
    return [f"## {network.title}", "", *table, "", heading, "", *(f"- {line.strip()}" for line in memory), ""]


def as_csv(networks: Sequence[Described]) -> str:
    """One row per layer, then one for the total and one for each line of the memory; sizes as 96x55x55."""
    return text.csv_text([{"network": one.name, **record} for one in networks for record in _records(one)])


def _records(network: Described) -> Iterator[dict[str, Any]]:
    for row in network.rows:
        yield {
            key: "x".join(map(str, value)) if isinstance(value, tuple) else value for key, value in record(row).items()
        }
    counts = {"parameters": network.parameters, "bytes": BYTES * network.parameters, "macs": network.macs}
    yield {"layer": "total", **counts}
    yield from ({"layer": name, "kind": "memory", "bytes": size} for name, size in network.memory.items())


def record(row: LayerRow) -> dict[str, Any]:
    """The row by column; shapes are tuples."""
    return {
        "layer": row.name,
        "kind": row.kind,
        "input": row.input,
        "kernel": row.kernel,
        "stride": row.stride,
        "padding": row.padding,
        "groups": row.groups,
        "output": row.output,
        "receptive_field": row.receptive_field,
        "parameters": row.parameters,
        "bytes": row.bytes,
        "macs": row.macs,
    }


def as_json(networks: Sequence[Described], ratios: Sequence[dict[str, float | None]]) -> str:
    """The networks with their layers; bytes in float32, ratios to the first network."""
    found = [
        {
            "network": one.name,
            "title": one.title,
            "input": one.image,
            "classes": one.classes,
            "parameters": one.parameters,
            "bytes": BYTES * one.parameters,
            "macs": one.macs,
            "memory": one.memory,
            "ratios": ratio,
            "layers": [record(row) for row in one.rows],
        }
        for one, ratio in zip(networks, ratios, strict=True)
    ]
    return json.dumps({"networks": found}, indent=2) + "\n"
