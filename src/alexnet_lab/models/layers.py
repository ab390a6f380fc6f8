"""Building blocks of the networks: named rows, padding, pools, activations and initialisers."""

from collections import OrderedDict
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from alexnet_lab.models.lrn import LocalResponseNorm


class GroupedConv2d(nn.Conv2d):
    """A convolution in groups, `nn.Conv2d(..., groups=...)` in its parameters, their names and its function.

    In half precision on a GPU it is computed as one convolution over all channels, with weights of 0 between the
    groups: more arithmetic, but cuDNN's grouped kernels take 1.4 to 2.4 times as long on an H200 (docs/gpu.md).
    """

    def forward(self, input: Tensor) -> Tensor:
        half = torch.is_autocast_enabled("cuda") or self.weight.dtype in (torch.float16, torch.bfloat16)
        if self.groups == 1 or not input.is_cuda or not half:
            return super().forward(input)
        return self._conv_forward_whole(input)

    def _conv_forward_whole(self, input: Tensor) -> Tensor:
        rows = []
        for group, weight in enumerate(self.weight.chunk(self.groups)):
            before, after = ((weight.shape[1] * other) for other in (group, self.groups - 1 - group))
            zeros = weight.new_zeros(weight.shape[0], 1, *weight.shape[2:])
            rows.append(torch.cat([zeros.expand(-1, before, -1, -1), weight, zeros.expand(-1, after, -1, -1)], 1))
        return nn.functional.conv2d(input, torch.cat(rows), self.bias, self.stride, self.padding, self.dilation)


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": lambda: nn.ReLU(inplace=True), "tanh": nn.Tanh}


PREFIXES: dict[type[nn.Module], str] = {
    nn.Conv2d: "conv",
    GroupedConv2d: "conv",
    nn.Linear: "fc",
    LocalResponseNorm: "norm",
    nn.MaxPool2d: "pool",
    nn.AvgPool2d: "pool",
    nn.Dropout: "drop",
}


def row(number: int, *layers: nn.Module) -> list[tuple[str, nn.Module]]:
    """A row of a network's table: its layers in sequence with their names, `conv1 act1 norm1 pool1`; no identities."""
    return [
        (f"{PREFIXES.get(type(layer), 'act')}{number}", layer) for layer in layers if type(layer) is not nn.Identity
    ]


def sequence(*rows: tuple[str, nn.Module]) -> nn.Sequential:
    """The rows in sequence; their names become the names of the submodules."""
    return nn.Sequential(OrderedDict(rows))


def overhang_pad(side: int, kernel: int = 11, stride: int = 4, *, centred: bool = False) -> nn.Module:
    """Zero padding that completes the last window of a convolution: 224 -> 227; 227 is unchanged.

    They go to the right and the bottom, where the 2012 code's windows overhang; `centred` spreads them over all four
    sides, the odd one right and bottom, as the Keras article does.
    """
    missing = (kernel - side) % stride
    before = missing // 2 if centred else 0
    after = missing - before
    return nn.ZeroPad2d((before, after, before, after)) if missing else nn.Identity()


def max_pool(overlapping: bool = True) -> nn.MaxPool2d:
    """The paper's 3x3 pool with stride 2, or the 2x2 one of its ablation: from 55, 27 and 13 both give 27, 13, 6."""
    return nn.MaxPool2d(3 if overlapping else 2, stride=2)


def output_side(layers: Iterable[nn.Module], side: int) -> int:
    """The side of the square output of `layers` for a square input; layers of other types keep the size."""
    for layer in layers:
        match layer:
            case nn.ZeroPad2d(padding=(left, right, _, _)):
                side += left + right
            case nn.Conv2d(kernel_size=(kernel, _), stride=(stride, _), padding=(padding, _)):
                side = (side + 2 * int(padding) - kernel) // stride + 1
            case nn.MaxPool2d(kernel_size=int(kernel), stride=int(stride)):
                side = (side - kernel) // stride + 1
            case nn.AvgPool2d(kernel_size=int(kernel), stride=int(stride)):
                side = (side - kernel) // stride + 1
    return side


def gaussian_(layer: nn.Module, std: float, bias: float = 0.0) -> None:
    """Weights from N(0, std), constant biases; changes only convolutions and linear layers."""
    if isinstance(layer, nn.Conv2d | nn.Linear):
        nn.init.normal_(layer.weight, std=std)
        assert layer.bias is not None
        nn.init.constant_(layer.bias, bias)


def xavier_uniform_(layer: nn.Module) -> None:
    """Weights uniform in +-sqrt(6 / (fan in + fan out)), biases unchanged; leaves other layers unchanged."""
    if isinstance(layer, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(layer.weight)


def glorot_uniform_(layer: nn.Module) -> None:
    """Keras's default: the same weights as `xavier_uniform_`, and biases of 0."""
    xavier_uniform_(layer)
    if isinstance(layer, nn.Conv2d | nn.Linear):
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)
