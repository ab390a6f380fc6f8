"""Local response normalisation across channels, with a custom backward pass.

On a GPU each pass is one kernel, see `lrn_kernels`; elsewhere see `lrn_chunks`. In a network that is compiled for a
GPU, both passes are operators: compiled from PyTorch's operations, they would read and write the maps more often.
"""

import logging
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet_lab.models.lrn_chunks import Constants, dense, gradient, memory_format, normalised, wide

log = logging.getLogger(__name__)


def local_response_norm(x: Tensor, size: int, alpha: float, beta: float, k: float, groups: int = 1) -> Tensor:
    """x / (k + alpha / size * sum of x^2 over `size` neighbouring channels)^beta, separately for each channel group.

    x: float [N, C, H, W] of any memory format, groups divides C, N may be 0. The result has x's shape, dtype and
    format; half precision is computed in float32, because k + alpha * x^2 needs its precision. Channels outside a group
    count as 0. An even window has one more channel on the lower side, as in PyTorch.

    Second derivatives, torch.export, ONNX and torch.compile on a CPU use PyTorch's operations. In a network that is
    compiled for a GPU (or exported there with strict=True), the kernels are an operator, whose gradient cannot be
    differentiated.
    """
    constants = Constants(size, alpha, beta, k, groups)
    if not torch.compiler.is_compiling() and not torch.jit.is_tracing():
        return _LocalResponseNorm.apply(x, constants)
    # Not `torch.compiler.is_exporting()`, which is True in torch.compile as well with torch 2.11.
    if torch.compiler.is_dynamo_compiling() and _has_kernels(x):
        return _operator(x, *constants)
    return _composed(x, constants)


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


def _composed(x: Tensor, constants: Constants) -> Tensor:
    """The same function made of PyTorch operations, which compilers can fuse and exporters support."""
    size, alpha, beta, k, groups = constants
    numbers = x.to(wide(x))
    squares = numbers.square().unflatten(1, (groups, -1))  # [N, groups, c, H, W]
    padded = F.pad(squares, (0, 0, 0, 0, size // 2, (size - 1) // 2))
    sums = sum(padded.narrow(2, first, squares.shape[2]) for first in range(size))
    assert isinstance(sums, Tensor)
    return (numbers * (k + alpha / size * sums.flatten(1, 2)).pow(-beta)).to(x.dtype)


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


def _normalised(x: Tensor, constants: Constants) -> Tensor:
    x = dense(x)
    kernels = _kernels_for(x)
    return kernels.forward(x, *constants) if kernels else normalised(x, constants)


def _gradient(x: Tensor, grad: Tensor, constants: Constants) -> Tensor:
    x = dense(x)
    grad = grad.contiguous(memory_format=memory_format(x))
    kernels = _kernels_for(x)
    return kernels.backward(x, grad, *constants) if kernels else gradient(x, grad, constants)


class _LocalResponseNorm(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, constants: Constants) -> Tensor:
        return _normalised(x, constants)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Constants], output: Tensor) -> None:
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
    return _normalised(x, Constants(size, alpha, beta, k, groups))


@torch.library.custom_op("alexnet_lab::local_response_norm_gradient", mutates_args=())
def _gradient_operator(x: Tensor, grad: Tensor, size: int, alpha: float, beta: float, k: float, groups: int) -> Tensor:
    return _gradient(x, grad, Constants(size, alpha, beta, k, groups))


@_operator.register_fake
def _(x: Tensor, *constants: Any) -> Tensor:
    return torch.empty_like(dense(x))


@_gradient_operator.register_fake
def _(x: Tensor, grad: Tensor, *constants: Any) -> Tensor:
    return torch.empty_like(dense(x))


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, *ctx.constants = inputs
    ctx.save_for_backward(x)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return _gradient_operator(ctx.saved_tensors[0], grad, *ctx.constants), *(None for _ in ctx.constants)


_operator.register_autograd(_differentiate, setup_context=_save)
