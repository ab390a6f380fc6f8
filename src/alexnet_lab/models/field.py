"""Receptive fields: how much of a network's input one position of a layer's output depends on.

Counted as usual from kernel, stride and dilation on the way from the input, away from the borders, but at most the
whole image. N images, C channels, H W height and width.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from alexnet_lab.models.layers import KEEP_THE_SIZE, is_activation

WINDOWS = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
ADAPTIVE = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
SEES_ALL = (nn.GroupNorm, nn.InstanceNorm2d)
"""Their statistics are over the whole map."""
KEEP = (*KEEP_THE_SIZE, nn.Flatten, nn.ZeroPad2d, nn.ConstantPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d)
POINTWISE = {
    *("add", "iadd", "sub", "mul", "imul", "div", "cat", "concat", "clone", "contiguous"),
    *("relu", "sigmoid", "tanh", "gelu", "silu", "leaky_relu", "elu", "softplus", "hardswish", "dropout", "flatten"),
}
"""Names of functions between layers whose output has the positions of their inputs."""


class Field(NamedTuple):
    """The receptive field of each position of a map; of all elements of a vector."""

    size: tuple[int, int]
    """(height, width), in pixels of the input."""
    step: tuple[int, int] | None
    """(height, width) between neighbouring positions, in pixels of the input; None if it varies."""


class Fields(TorchFunctionMode):
    """Follows the receptive fields of tensors during one forward pass of `image`, [1, C, H, W].

    Layers that are not known, and functions between layers other than `POINTWISE`, have no field.
    """

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        height, width = image.shape[2:]
        self._whole = Field((height, width), (height, width))
        self._of = WeakTensorKeyDictionary()
        self._of[image] = Field((1, 1), (1, 1))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and getattr(func, "__name__", "").strip("_") in POINTWISE:
            self._set(result, self._joined(list(_tensors(args)), result))
        return result

    def after(self, layer: nn.Module, inputs: Sequence[Any], output: Tensor) -> tuple[int, ...]:
        """The size of the field of the layer's `output`, (height, width); empty if it is not known."""
        first = next(_tensors(inputs), None)
        before = None if first is None else self._of.get(first)
        field = None if first is None or before is None else self._after(layer, before, first, output)
        self._set(output, field)
        return field.size if field else ()

    def _set(self, tensor: Tensor, field: Field | None) -> None:
        self._of[tensor] = field

    def _after(self, layer: nn.Module, before: Field, input: Tensor, output: Tensor) -> Field | None:
        if isinstance(layer, WINDOWS):
            return self._windows(layer, before)
        if isinstance(layer, ADAPTIVE):
            return self._bins(before, input, output)
        if isinstance(layer, nn.Linear):
            return self._whole if input.dim() == 2 else None
        if isinstance(layer, SEES_ALL):
            return Field(self._whole.size, before.step)
        return before if isinstance(layer, KEEP) or is_activation(type(layer)) else None

    def _windows(self, layer: nn.Module, before: Field) -> Field | None:
        kernel, stride = _pair(layer.kernel_size), _pair(layer.stride)
        dilation = _pair(getattr(layer, "dilation", 1))
        reach = tuple(d * (k - 1) for k, d in zip(kernel, dilation, strict=True))
        if before.step is None:
            return before if reach == (0, 0) else None
        rows, columns = (
            min(whole, size + step * more)
            for whole, size, step, more in zip(self._whole.size, before.size, before.step, reach, strict=True)
        )
        return Field((rows, columns), (before.step[0] * stride[0], before.step[1] * stride[1]))

    def _bins(self, before: Field, input: Tensor, output: Tensor) -> Field | None:
        """Adaptive pools: bin i of n covers floor(i length / n) to ceil((i + 1) length / n)."""
        if output.shape[2:] == (1, 1):
            return self._whole
        if input.shape == output.shape:
            return before
        if before.step is None:
            return None
        sides: list[int] = []
        for length, count, side, step, whole in zip(
            input.shape[2:], output.shape[2:], before.size, before.step, self._whole.size, strict=True
        ):
            widest = max(-(-(i + 1) * length // count) - i * length // count for i in range(count))
            sides.append(min(whole, side + step * (widest - 1)))
        return Field((sides[0], sides[1]), None)

    def _joined(self, tensors: Sequence[Tensor], result: Tensor) -> Field | None:
        """Of the inputs of a function that has the positions of its inputs."""
        found = [(one, self._of.get(one)) for one in tensors if not isinstance(one, nn.Parameter)]
        fields = [field for _, field in found if field is not None]
        if not fields or len(fields) < len(found):
            return None
        is_vector = result.dim() == 2
        steps = {field.step for one, field in found if field and (is_vector or one.shape[2:] == result.shape[2:])}
        rows, columns = (max(field.size[side] for field in fields) for side in (0, 1))
        return Field((rows, columns), steps.pop() if len(steps) == 1 else None)


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
