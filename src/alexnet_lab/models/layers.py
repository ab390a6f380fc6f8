"""What the networks are built of: local response normalisation, padding, pools, activations and initialisers.

Shapes: N images, C channels, H W height and width.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": lambda: nn.ReLU(inplace=True), "tanh": nn.Tanh}


def local_response_norm(x: Tensor, size: int, alpha: float, beta: float, k: float, groups: int = 1) -> Tensor:
    """x / (k + alpha / size * sum of x^2 over `size` neighbouring channels)^beta, each group of channels by itself.

    x: float [N, C, H, W] of any memory format, groups divides C, N may be 0. The result has x's shape, dtype and
    format; half precision is computed in float32, whose digits k + alpha * x^2 needs. Channels outside a group count
    as 0. An even window has one channel more on the lower side, as in PyTorch.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    squares = wide.square().unflatten(1, (groups, -1))  # [N, groups, C / groups, H, W]
    padded = F.pad(squares, (0, 0, 0, 0, size // 2, (size - 1) // 2))
    mean = F.avg_pool3d(padded, (size, 1, 1), stride=1).flatten(1, 2)  # [N, C, H, W]
    return (wide * (k + alpha * mean).pow(-beta)).to(x.dtype)


class LocalResponseNorm(nn.Module):
    """Local response normalisation over neighbouring channels, [N, C, H, W] -> [N, C, H, W].

    `alpha` follows the convention of PyTorch, Caffe and the 2012 source: it is divided by `size`. The paper's formula
    does not divide, so its letter (alpha 1e-4, n 5) is alpha=5e-4 here. The defaults are the constants of the source's
    configuration that produced the paper's numbers (layers-145); Caffe has k=1.

    `groups`: the towers, each normalised by itself, as the source does. With one group over the same 96 channels, those
    beside the border (46-49) come out differently.

    Source: paper, section 3.3; computerhistory/AlexNet-Source-Code, layers-145.
    """

    def __init__(self, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0, groups: int = 1) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k, self.groups = size, alpha, beta, k, groups

    def forward(self, x: Tensor) -> Tensor:
        return local_response_norm(x, self.size, self.alpha, self.beta, self.k, self.groups)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}, groups={self.groups}"


PREFIXES: dict[type[nn.Module], str] = {
    nn.Conv2d: "conv",
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
    """The rows one after the other, their names the names of the submodules."""
    return nn.Sequential(OrderedDict(rows))


def overhang_pad(side: int, kernel: int = 11, stride: int = 4, *, centred: bool = False) -> nn.Module:
    """Zeros that complete a convolution's last window, so that its output is rounded up: 224 -> 227, 227 as is.

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
    """Side of the square map that `layers`, in sequence, make of a square one; other kinds of layers keep the size."""
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
    """Weights from N(0, std), biases constant; leaves layers that are neither convolution nor linear alone."""
    if isinstance(layer, nn.Conv2d | nn.Linear):
        nn.init.normal_(layer.weight, std=std)
        assert layer.bias is not None
        nn.init.constant_(layer.bias, bias)


def xavier_uniform_(layer: nn.Module) -> None:
    """Weights uniform in +-sqrt(6 / (fan in + fan out)), biases as they are; leaves other layers alone."""
    if isinstance(layer, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(layer.weight)


def glorot_uniform_(layer: nn.Module) -> None:
    """Keras's default: the same weights as `xavier_uniform_`, and biases of 0."""
    xavier_uniform_(layer)
    if isinstance(layer, nn.Conv2d | nn.Linear):
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)
