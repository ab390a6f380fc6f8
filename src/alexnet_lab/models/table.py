"""The layer table of a network in the form used by papers, with counts of parameters and multiply-accumulates.

Shapes: C channels, H W height and width; without the batch.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from alexnet_lab.models.field import Fields
from alexnet_lab.models.layers import DROPOUTS

BYTES = 4
"""Of a number in float32."""


class Remark(NamedTuple):
    """A network's module with a constant REMARK has something that a description of the network must mention."""

    text: str
    key: str
    """The option whose values are shown side by side."""
    values: tuple[Any, ...]


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
    receptive_field: tuple[int, ...]
    """(height, width): pixels of the network's input that one position of the output depends on, see `Fields`."""
    parameters: int
    macs: int
    """Multiply-accumulates of a convolution or linear layer for one image; 0 for others."""

    @property
    def bytes(self) -> int:
        """Of the parameters, in float32."""
        return BYTES * self.parameters


def layer_table(net: nn.Module, in_channels: int, image_size: int) -> list[LayerRow]:
    """The rows of `run_once`."""
    return run_once(net, in_channels, image_size)[0]


def run_once(net: nn.Module, in_channels: int, image_size: int) -> tuple[list[LayerRow], Any]:
    """A row for each layer in the order of the forward pass, and the output of one empty image, [1, C, S, S].

    `nn.Identity` and dropout with probability 0, which change nothing, have no row. Computed on the network's device.
    The network is left as it was: its training flags, gradients and the random state. A network on the meta device,
    which holds no numbers, will do.
    """
    rows: list[LayerRow] = []

    def record(name: str) -> Any:
        def hook(layer: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):  # a layer of a user's network may return several
                rows.append(_row(name, layer, next(iter(inputs), None), output, fields.after(layer, inputs, output)))

        return hook

    leaves = {name: m for name, m in net.named_modules() if not list(m.children()) and not _changes_nothing(m)}
    hooks = [layer.register_forward_hook(record(name)) for name, layer in leaves.items()]
    parameter = next(net.parameters(), torch.empty(0))
    image = torch.zeros(1, in_channels, image_size, image_size, device=parameter.device, dtype=parameter.dtype)
    fields = Fields(image)
    try:
        with torch.no_grad(), _evaluating(net), fields:
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


def _changes_nothing(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Identity) or (isinstance(layer, DROPOUTS) and layer.p == 0)


def _row(name: str, layer: nn.Module, input: Any, output: Tensor, receptive_field: tuple[int, ...]) -> LayerRow:
    groups = getattr(layer, "groups", None)
    return LayerRow(
        name=name,
        kind=_kind(layer),
        kernel=_numbers(layer, "kernel_size"),
        stride=_numbers(layer, "stride"),
        padding=_padding(layer),
        groups=groups if isinstance(groups, int) else None,
        input=tuple(input.shape[1:]) if isinstance(input, Tensor) else (),
        output=tuple(output.shape[1:]),
        receptive_field=receptive_field,
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
    if isinstance(value, int):
        return (value, value)
    known = isinstance(value, tuple | list) and all(isinstance(number, int) for number in value)
    return tuple(value) if known else ()  # an attribute of a user's layer can be anything


def _padding(layer: nn.Module) -> tuple[int, ...]:
    """As `LayerRow.padding`; `same` that is not symmetric as (left, right, top, bottom)."""
    value = getattr(layer, "padding", ())
    if not isinstance(layer, nn.Conv2d) or not isinstance(value, str):
        return _numbers(layer, "padding")
    left, right, top, bottom = layer._reversed_padding_repeated_twice  # zeros for `valid`
    return (top, left) if (left, top) == (right, bottom) else (left, right, top, bottom)


@contextmanager
def _evaluating(net: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in net.modules()}
    net.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
