"""Local response normalisation across channels, with a custom backward pass.

PyTorch's version consists of operations that each read and write whole maps, including a three-dimensional pool, and
saves several maps for the backward pass. This version saves only the input, which the preceding ReLU has saved anyway.
On a CPU, chunks go through all operations while they are in the cache, and window sums are sums of shifted views. On a
GPU, each pass is one kernel, see `lrn_kernels`.

Shapes: N images, C channels, H W height and width. A row contains the c = C / groups channels of a group: [R, c, I],
with I = H * W adjacent positions in contiguous maps and I = 1 in channels_last maps.
"""

import logging
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

log = logging.getLogger(__name__)

PIECE = {"cpu": 1 << 19}
"""Numbers processed at a time, by device type: 2 MiB for each of five buffers."""
LARGE_PIECE = 1 << 26
"""For other devices without a kernel, and for float64: it only limits the memory."""


class _Constants(NamedTuple):
    size: int
    alpha: float
    beta: float
    k: float
    groups: int


def local_response_norm(x: Tensor, size: int, alpha: float, beta: float, k: float, groups: int = 1) -> Tensor:
    """x / (k + alpha / size * sum of x^2 over `size` neighbouring channels)^beta, separately for each channel group.

    x: float [N, C, H, W] of any memory format, groups divides C, N may be 0. The result has x's shape, dtype and
    format; half precision is computed in float32, because k + alpha * x^2 needs its precision. Channels outside a group
    count as 0. An even window has one more channel on the lower side, as in PyTorch.

    Second derivatives, torch.export, ONNX and torch.compile on a CPU use PyTorch's operations; in a network that is
    compiled for a GPU, the kernels are an operator, whose gradient cannot be differentiated.
    """
    constants = _Constants(size, alpha, beta, k, groups)
    if not torch.compiler.is_compiling() and not torch.jit.is_tracing():
        return _LocalResponseNorm.apply(x, constants)
    if torch.jit.is_tracing() or torch.compiler.is_exporting() or not _has_kernels(x):
        return _composed(x, constants)
    return _operator(x, *constants)


class LocalResponseNorm(nn.Module):
    """Local response normalisation over neighbouring channels, [N, C, H, W] -> [N, C, H, W].

    `alpha` follows the convention of PyTorch, Caffe and the 2012 source: it is divided by `size`. The paper's formula
    does not divide, so its constants (alpha 1e-4, n 5) mean alpha=5e-4 here. The defaults are the constants of the
    source's configuration that produced the paper's numbers (layers-145); Caffe has k=1.

    `groups`: the towers, normalised separately, as in the source. A single group over the same 96 channels would change
    the channels next to the border (46-49).

    Source: paper, section 3.3; computerhistory/AlexNet-Source-Code, layers-145.
    """

    def __init__(self, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0, groups: int = 1) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k, self.groups = size, alpha, beta, k, groups

    def forward(self, x: Tensor) -> Tensor:
        return local_response_norm(x, self.size, self.alpha, self.beta, self.k, self.groups)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}, groups={self.groups}"


def _composed(x: Tensor, constants: _Constants) -> Tensor:
    """The same function made of PyTorch operations, which compilers can fuse and exporters support."""
    size, alpha, beta, k, groups = constants
    wide = x.to(_wide(x))
    squares = wide.square().unflatten(1, (groups, -1))  # [N, groups, c, H, W]
    padded = F.pad(squares, (0, 0, 0, 0, size // 2, (size - 1) // 2))
    sums = sum(padded.narrow(2, first, squares.shape[2]) for first in range(size))
    assert isinstance(sums, Tensor)
    return (wide * (k + alpha / size * sums.flatten(1, 2)).pow(-beta)).to(x.dtype)


def _has_kernels(x: Tensor) -> bool:
    """Whether x is on a GPU, in half or single precision."""
    return x.is_cuda and x.dtype != torch.float64


def _kernels_for(x: Tensor) -> ModuleType | None:
    """`lrn_kernels` if there are kernels for x and Triton can compile them; otherwise None."""
    return _kernels() if _has_kernels(x) else None


@cache
def _kernels() -> ModuleType | None:
    """Import and try the kernels at first use; None if Triton is not installed or cannot compile them."""
    if find_spec("triton") is None:
        return None
    from alexnet_lab.models import lrn_kernels

    try:
        lrn_kernels.forward(torch.zeros(1, 1, 1, 1, device="cuda"), 5, 1.0, 0.75, 1.0, 1)
    except Exception as error:
        log.warning(
            "local response normalisation is several times slower than it could be, because Triton cannot compile its "
            "kernel: %s (it needs a C compiler and Python's headers; in Debian, gcc and python3-dev)",
            str(error).partition("\n")[0] or type(error).__name__,
        )
        return None
    return lrn_kernels


def _normalised(x: Tensor, constants: _Constants) -> Tensor:
    x = _dense(x)
    if kernels := _kernels_for(x):
        return kernels.forward(x, *constants)
    y = torch.empty_like(x)
    work = _Workspace(x, constants)
    for xs, ys in work.pieces(x, y):
        wide = xs.to(work.dtype)
        power = work.sums_of_squares(wide).mul_(work.weight).add_(constants.k).pow_(constants.beta)
        torch.div(wide, work.channels_of(power, xs), out=ys)
    return y


def _gradient(x: Tensor, grad: Tensor, constants: _Constants) -> Tensor:
    """g s^-beta - 2 alpha beta / size x (sum of g x s^(-beta - 1)), with s = k + alpha / size (sum of x^2).

    The second sum is over the channels whose windows contain this one.
    """
    x = _dense(x)
    grad = grad.contiguous(memory_format=_memory_format(x))
    if kernels := _kernels_for(x):
        return kernels.backward(x, grad, *constants)
    dx = torch.empty_like(x)
    work = _Workspace(x, constants)
    for xs, gs, ds in work.pieces(x, grad, dx):
        wide = xs.to(work.dtype)
        scale, power = work.scale_and_power(wide)
        direct = torch.div(gs, work.channels_of(power, xs), out=work.direct[: len(xs)])
        shared = work.mirrored_window_sum(direct, wide, scale)
        torch.addcmul(direct, wide, shared, value=-2 * constants.beta * work.weight, out=ds)
    return dx


class _LocalResponseNorm(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, constants: _Constants) -> Tensor:
        return _normalised(x, constants)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, _Constants], output: Tensor) -> None:
        x, ctx.constants = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True: the gradient itself will be differentiated
            return torch.autograd.grad(_composed(x, ctx.constants), x, grad, create_graph=True)[0], None
        return _gradient(x, grad, ctx.constants), None


@torch.library.custom_op("alexnet_lab::local_response_norm", mutates_args=())
def _operator(x: Tensor, size: int, alpha: float, beta: float, k: float, groups: int) -> Tensor:
    return _normalised(x, _Constants(size, alpha, beta, k, groups))


@torch.library.custom_op("alexnet_lab::local_response_norm_gradient", mutates_args=())
def _gradient_operator(
    x: Tensor, grad: Tensor, size: int, alpha: float, beta: float, k: float, groups: int
) -> Tensor:
    return _gradient(x, grad, _Constants(size, alpha, beta, k, groups))


@_operator.register_fake
def _(x: Tensor, *constants: Any) -> Tensor:
    return torch.empty_like(_dense(x))


@_gradient_operator.register_fake
def _(x: Tensor, grad: Tensor, *constants: Any) -> Tensor:
    return torch.empty_like(_dense(x))


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, *ctx.constants = inputs
    ctx.save_for_backward(x)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return _gradient_operator(ctx.saved_tensors[0], grad, *ctx.constants), *(None for _ in ctx.constants)


_operator.register_autograd(_differentiate, setup_context=_save)


class _Workspace:
    """Buffers for a chunk of r rows, reused for every chunk, so that they stay in the cache.

    In `terms`, the channels of each row are preceded by zeros, as many as a window reaches back. The sum over a window
    is then a sum of shifted views of the flat buffer: a window that leaves its row reads zeros.
    """

    def __init__(self, x: Tensor, constants: _Constants) -> None:
        self.constants = constants
        self.weight = constants.alpha / constants.size
        self.dtype = _wide(x)
        rows, self.channels, self.inner = _rows(x, constants.groups).shape
        self.before, self.after = constants.size // 2, (constants.size - 1) // 2
        self.pitch = self.before + self.channels  # channels from row to row
        piece = PIECE.get(x.device.type, LARGE_PIECE)
        self.most = max(1, min(rows, piece // max(1, self.pitch * self.inner)))
        self.terms = x.new_zeros((self.most * self.pitch + constants.size) * self.inner, dtype=self.dtype)
        self.sums = x.new_empty(self.most * self.pitch * self.inner, dtype=self.dtype)
        self.scales = torch.empty_like(self.sums)
        self.powers = x.new_empty(len(self.terms), dtype=self.dtype)
        self.pairs = self.powers  # neither is needed while the other is
        self.direct = x.new_empty((self.most, self.channels, self.inner), dtype=self.dtype)

    def pieces(self, *maps: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """The rows [r, c, I] of maps [N, C, H, W], in chunks."""
        return zip(*(_rows(tensor, self.constants.groups).split(self.most) for tensor in maps), strict=True)

    def channels_of(self, buffer: Tensor, rows: Tensor) -> Tensor:
        """The channels of the rows in a flat buffer, as a view [r, c, I]."""
        held = buffer[: len(rows) * self.pitch * self.inner]
        return held.view(len(rows), self.pitch, self.inner)[:, : self.channels]

    def sums_of_squares(self, rows: Tensor) -> Tensor:
        """Sum of x^2 over the window, flat."""
        torch.mul(rows, rows, out=self._terms_of(rows))
        return self._window_sums(rows, first=0)

    def scale_and_power(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """s = k + alpha / size * (sum of x^2 over the window), and s^beta, both flat."""
        _, _, beta, k, _ = self.constants
        sums = self.sums_of_squares(rows).mul_(self.weight)
        scale = torch.add(sums, k, out=self.scales[: len(sums)])
        power = self.powers[: len(sums)]
        if beta != 0.75:
            return scale, torch.pow(scale, beta, out=power)
        # A third of the time of pow: sqrt(s sqrt(s)), with the outer s taken in its two parts, before it was rounded.
        torch.sqrt(scale, out=power)
        return scale, sums.mul_(power).add_(power, alpha=k).sqrt_()

    def mirrored_window_sum(self, direct: Tensor, rows: Tensor, scale: Tensor) -> Tensor:
        """Sum of g x s^(-beta - 1), with direct = g s^-beta, over the channels that reach this one, [r, c, I]."""
        torch.mul(direct, rows, out=self._terms_of(rows)).div_(self.channels_of(scale, rows))
        return self.channels_of(self._window_sums(rows, first=self.before - self.after), rows)

    def _terms_of(self, rows: Tensor) -> Tensor:
        return self.channels_of(self.terms[self.before * self.inner :], rows)

    def _window_sums(self, rows: Tensor, first: int) -> Tensor:
        """Flat; the window of a row's first channel begins `first` channels after the row's leading zeros do."""
        size, sums = self.constants.size, self.sums[: len(rows) * self.pitch * self.inner]
        terms = self.terms[first * self.inner :][: len(sums) + (size - 1) * self.inner]
        # Sums of two neighbours serve the windows of both: fewer passes, and fewer roundings in a row.
        earlier, later = terms[: -self.inner], terms[self.inner :]
        pairs = torch.add(earlier, later, out=self.pairs[: len(later)])
        parts = [pairs[i * self.inner :][: len(sums)] for i in range(0, size - 1, 2)]
        if size % 2:
            parts.append(terms[(size - 1) * self.inner :])
        if len(parts) == 1:
            return sums.copy_(parts[0])
        torch.add(parts[0], parts[1], out=sums)
        for part in parts[2:]:
            sums += part
        return sums


def _rows(x: Tensor, groups: int) -> Tensor:
    """A dense [N, C, H, W] as rows [R, c, I], a view."""
    if x.is_contiguous():
        return x.unflatten(1, (groups, -1)).flatten(0, 1).flatten(2)
    return x.permute(0, 2, 3, 1).unflatten(3, (groups, -1)).flatten(0, 3).unsqueeze(2)


def _memory_format(x: Tensor) -> torch.memory_format:
    last = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def _dense(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=_memory_format(x))


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
