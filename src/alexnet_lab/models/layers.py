"""Building blocks of the networks: named rows, padding, pools, activations and initialisers."""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from alexnet_lab.models.batch_norm import BatchNorm
from alexnet_lab.models.lrn import LocalResponseNorm


class GroupedConv2d(nn.Conv2d):
    """A convolution in groups, `nn.Conv2d(..., groups=...)` in its parameters, their names and its function.

    In half precision on a GPU it is computed as one convolution over all channels, with weights of 0 between the
    groups: more arithmetic, but cuDNN's grouped kernels take 1.4 to 2.4 times as long on an H200 (docs/gpu.md).
    """

    def forward(self, input: Tensor) -> Tensor:
        if self.groups == 1 or _dtype_on_gpu(input) not in (torch.float16, torch.bfloat16):
            return super().forward(input)
        return self._conv_forward_whole(input)

    def _conv_forward_whole(self, input: Tensor) -> Tensor:
        rows = []
        for group, weight in enumerate(self.weight.chunk(self.groups)):
            before, after = ((weight.shape[1] * other) for other in (group, self.groups - 1 - group))
            zeros = weight.new_zeros(weight.shape[0], 1, *weight.shape[2:])
            rows.append(torch.cat([zeros.expand(-1, before, -1, -1), weight, zeros.expand(-1, after, -1, -1)], 1))
        return nn.functional.conv2d(input, torch.cat(rows), self.bias, self.stride, self.padding, self.dilation)


class StridedConv2d(nn.Conv2d):
    """The first convolution, with large windows and a stride on few channels; in all else `nn.Conv2d`.

    On a GPU, except in float64, blocks of stride x stride pixels become the channels of one position, and the windows
    become ones of whole blocks with stride 1; the weights that this adds are 0. cuDNN has fast kernels for that, but
    not for 3 channels: forward and backward take 0.3 to 0.5 of the time in bfloat16 on an H100 (docs/gpu.md).
    """

    def forward(self, input: Tensor) -> Tensor:
        dtype = _dtype_on_gpu(input)
        if dtype in (None, torch.float64) or not input.is_contiguous(memory_format=torch.channels_last):
            return super().forward(input)
        return self._conv_forward_in_blocks(input.to(dtype))

    def _conv_forward_in_blocks(self, input: Tensor) -> Tensor:
        """[N, C, H, W] of the dtype of the computation -> [N, O, h, w]; square windows, stride and padding."""
        (stride, _), (kernel, _), padding = self.stride, self.kernel_size, self.padding[0]
        assert isinstance(padding, int)
        taps = -(-kernel // stride)  # blocks per window
        sides = [(side + 2 * padding - kernel) // stride + taps for side in input.shape[2:]]
        below, right = (blocks * stride - side - padding for blocks, side in zip(sides, input.shape[2:], strict=True))
        whole = nn.functional.pad(input, (padding, right, padding, below))
        # [N, h, w, rows of a block, columns, C]
        blocks = whole.permute(0, 2, 3, 1).unflatten(2, (-1, stride)).unflatten(1, (-1, stride)).transpose(2, 3)
        missing = taps * stride - kernel
        weight = nn.functional.pad(self.weight.to(input.dtype), (0, missing, 0, missing))
        windows = weight.unflatten(3, (taps, stride)).unflatten(2, (taps, stride)).permute(0, 2, 4, 3, 5, 1)
        images, weight = (each.flatten(3).permute(0, 3, 1, 2) for each in (blocks, windows))  # channels_last
        return nn.functional.conv2d(images, weight, self.bias)


def _dtype_on_gpu(input: Tensor) -> torch.dtype | None:
    """The dtype that a convolution of `input` is computed in, if that is on a GPU, otherwise None."""
    if not input.is_cuda:
        return None
    return torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else input.dtype


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
}


PREFIXES: dict[type[nn.Module], str] = {
    nn.Conv2d: "conv",
    GroupedConv2d: "conv",
    StridedConv2d: "conv",
    nn.Linear: "fc",
    LocalResponseNorm: "norm",
    nn.MaxPool2d: "pool",
    nn.AvgPool2d: "pool",
    nn.Dropout: "drop",
    nn.BatchNorm2d: "bn",
    BatchNorm: "bn",
    nn.ZeroPad2d: "pad",
}


DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
KEEP_THE_SIZE = (
    *(nn.Identity, nn.BatchNorm2d, nn.GroupNorm, *DROPOUTS),
    *(nn.LocalResponseNorm, LocalResponseNorm),
)
"""Layers whose output has the size of their input, as that of activations."""


def row(number: int, *layers: nn.Module) -> list[tuple[str, nn.Module]]:
    """A row of a network's table: its layers in sequence with their names, `conv1 act1 norm1 pool1`; no identities."""
    return [(f"{_prefix(type(layer))}{number}", layer) for layer in layers if type(layer) is not nn.Identity]


def _prefix(kind: type[nn.Module]) -> str:
    """That of `PREFIXES`; `act` for PyTorch's activations, and for every other type its name in lower case."""
    return PREFIXES.get(kind, "act" if is_activation(kind) else kind.__name__.lower())


def is_activation(kind: type[nn.Module]) -> bool:
    """Whether it is one of PyTorch's activations."""
    return kind.__module__ == "torch.nn.modules.activation" and kind is not nn.MultiheadAttention


def sequence(*rows: tuple[str, nn.Module]) -> nn.Sequential:
    """The rows in sequence; their names become the names of the submodules.

    Raises:
        ValueError: two layers have the same name.
    """
    counts = Counter(name for name, _ in rows)
    if repeated := [name for name, count in counts.items() if count > 1]:
        raise ValueError(f"two layers of the network have the same name: {', '.join(repeated)}")
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
    """The side of the square output of `layers` for a square input.

    Raises:
        TypeError: a layer changes the size in an unknown way, or its output is not square.
    """
    for layer in layers:
        match layer:
            case nn.ZeroPad2d(padding=padding) if padding[0] + padding[1] == padding[2] + padding[3]:
                side += padding[0] + padding[1]
            case nn.Conv2d() | nn.MaxPool2d() | nn.AvgPool2d():
                side = _side_after_windows(layer, side)
            case _ if not isinstance(layer, KEEP_THE_SIZE) and _prefix(type(layer)) != "act":
                raise TypeError(f"output_side does not know the size of the output of {layer}")
    return side


def _side_after_windows(layer: nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d, side: int) -> int:
    kernel, stride = _one(layer, layer.kernel_size), _one(layer, layer.stride)
    reach = _one(layer, getattr(layer, "dilation", 1)) * (kernel - 1) + 1
    if layer.padding == "same":
        return side
    padding = 0 if layer.padding == "valid" else _one(layer, layer.padding)
    beyond = side + 2 * padding - reach
    if not getattr(layer, "ceil_mode", False):
        return beyond // stride + 1
    windows = -(-beyond // stride) + 1
    return windows - 1 if (windows - 1) * stride >= side + padding else windows  # none starts in the padding behind


def _one(layer: nn.Module, numbers: int | Sequence[int | str] | str) -> int:
    """The number that applies to both sides."""
    first, *others = [numbers] if isinstance(numbers, int) else numbers
    if any(other != first for other in others):
        raise TypeError(f"output_side: the output of {layer} is not square")
    return int(first)


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
