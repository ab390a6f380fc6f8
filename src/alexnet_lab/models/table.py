"""The layer table of a network in the form used by papers, with counts of parameters and multiply-accumulates.

Shapes: C channels, H W height and width; without the batch.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn


@dataclass(frozen=True)
class LayerRow:
    """One executed layer. `None` or an empty tuple: the layer has no such property."""

    name: str
    """The name in the state dict, such as `conv1` or `features.0`."""
    kind: str
    """The layer's class, such as `Conv2d`."""
    kernel: tuple[int, ...]
    """(height, width)."""
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    """(height, width); for a padding layer (left, right, top, bottom)."""
    groups: int | None
    input: tuple[int, ...]
    """(C, H, W), or (features,); empty if the first argument is not a tensor."""
    output: tuple[int, ...]
    """As `input`."""
    parameters: int
    macs: int
    """Multiply-accumulates of a convolution or linear layer for one image; 0 for others."""


def layer_table(net: nn.Module, in_channels: int, image_size: int) -> list[LayerRow]:
    """One row per layer in the order of the forward pass, see `run_once`; `nn.Identity` has no row."""
    return run_once(net, in_channels, image_size)[0]


def run_once(net: nn.Module, in_channels: int, image_size: int) -> tuple[list[LayerRow], Any]:
    """The rows of `layer_table` and the output of one empty image, [1, C, S, S], on the network's own device.

    The network is left as it was: its training flags, gradients and the random state. A network on the meta device,
    which holds no numbers, will do.
    """
    rows: list[LayerRow] = []

    def record(name: str) -> Any:
        def hook(layer: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):  # a layer of a user's network may return several
                rows.append(_row(name, layer, next(iter(inputs), None), output))

        return hook

    leaves = {name: m for name, m in net.named_modules() if not list(m.children()) and not isinstance(m, nn.Identity)}
    hooks = [layer.register_forward_hook(record(name)) for name, layer in leaves.items()]
    parameter = next(net.parameters(), torch.empty(0))
    image = torch.zeros(1, in_channels, image_size, image_size, device=parameter.device, dtype=parameter.dtype)
    try:
        with torch.no_grad(), _evaluating(net):
            output = net(image)
    finally:
        for hook in hooks:
            hook.remove()
    return rows, output


def count_parameters(net: nn.Module) -> int:
    """The number of trainable parameters; shared ones count once."""
    return sum(parameter.numel() for parameter in net.parameters())


def count_macs(net: nn.Module, in_channels: int, image_size: int) -> int:
    """Multiply-accumulates of the convolutions and linear layers for one image."""
    return total_macs(layer_table(net, in_channels, image_size))


def total_macs(rows: Iterable[LayerRow]) -> int:
    """Multiply-accumulates of all layers for one image."""
    return sum(row.macs for row in rows)


def render(rows: Sequence[LayerRow]) -> Table:
    """The rows as a table for `rich`, with the totals below."""
    table = Table(show_footer=True)
    table.add_column("layer", "total")
    table.add_column("kind")
    for heading in ("kernel", "stride", "pad", "groups", "output"):
        table.add_column(heading, justify="right")
    table.add_column("parameters", f"{sum(row.parameters for row in rows):,}", justify="right")
    table.add_column("MACs", f"{total_macs(rows):,}", justify="right")
    for row in rows:
        table.add_row(
            row.name,
            row.kind,
            "x".join(map(str, row.kernel)),
            _short(row.stride),
            _short(row.padding),
            str(row.groups or ""),
            " x ".join(map(str, row.output)),
            f"{row.parameters:,}" if row.parameters else "",
            f"{row.macs:,}" if row.macs else "",
        )
    return table


def _row(name: str, layer: nn.Module, input: Any, output: Tensor) -> LayerRow:
    return LayerRow(
        name=name,
        kind=_kind(layer),
        kernel=_numbers(layer, "kernel_size"),
        stride=_numbers(layer, "stride"),
        padding=_numbers(layer, "padding"),
        groups=getattr(layer, "groups", None),
        input=tuple(input.shape[1:]) if isinstance(input, Tensor) else (),
        output=tuple(output.shape[1:]),
        parameters=count_parameters(layer),
        macs=layer.weight[0].numel() * output[0].numel() if isinstance(layer, nn.Conv2d | nn.Linear) else 0,
    )


def _kind(layer: nn.Module) -> str:
    """PyTorch's class name, also for a subclass that computes the same differently; otherwise the layer's own."""
    names = (kind.__name__ for kind in type(layer).__mro__ if kind.__module__.startswith("torch.nn.modules."))
    name = next(names)
    return type(layer).__name__ if name == "Module" else name


def _numbers(layer: nn.Module, attribute: str) -> tuple[int, ...]:
    value = getattr(layer, attribute, ())
    return (value, value) if isinstance(value, int) else tuple(value)


def _short(numbers: tuple[int, ...]) -> str:
    """A single number if all sides are equal."""
    return str(numbers[0]) if len(set(numbers)) == 1 else ",".join(map(str, numbers))


@contextmanager
def _evaluating(net: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in net.modules()}
    net.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
