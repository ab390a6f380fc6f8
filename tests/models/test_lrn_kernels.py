"""The Triton kernels of local response normalisation, run by Triton's interpreter on the CPU, against float64."""

import importlib
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
from torch import Tensor

from alexnet_lab.models.lrn import _composed
from alexnet_lab.models.lrn_chunks import Constants

triton = pytest.importorskip("triton")
pytestmark = pytest.mark.smoke
FORMATS = [torch.contiguous_format, torch.channels_last]


@pytest.fixture(scope="module")
def kernels() -> Iterator[ModuleType]:
    from alexnet_lab.models import lrn_kernels

    triton.knobs.runtime.interpret = True  # read where a kernel is defined
    yield importlib.reload(lrn_kernels)
    triton.knobs.runtime.interpret = False
    importlib.reload(lrn_kernels)


def error(result: Tensor, exact: Tensor) -> float:
    return float((result.double() - exact).norm() / exact.norm().clamp(min=1e-30))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("size", range(2, 10))
def test_kernels_equal_float64(
    kernels: ModuleType, size: int, memory_format: torch.memory_format, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(size)
    for shape, groups, beta in (((2, 12, 5, 5), 2, 0.75), ((1, 7, 3, 4), 1, 0.5), ((0, 12, 5, 5), 2, 0.75)):
        x, grad = (50 * torch.randn(2, *shape, generator=generator)).to(dtype)
        x, grad = (tensor.contiguous(memory_format=memory_format) for tensor in (x, grad))
        constants = (size, 1e-2, beta, 2.0, groups)
        wide = x.double().requires_grad_()
        exact = _composed(wide, Constants(*constants))
        (exact_gradient,) = torch.autograd.grad(exact, wide, grad.double())
        # The interpreter rounds to bfloat16 by cutting digits off: an error of up to 2^-7.
        limit = 1e-6 if dtype == torch.float32 else 2**-7
        result, gradient = kernels.forward(x, *constants), kernels.backward(x, grad, *constants)
        assert error(result, exact.detach()) < limit
        assert error(gradient, exact_gradient) < limit
        for made in (result, gradient):
            assert (made.dtype, made.stride()) == (dtype, x.stride())


def test_a_group_of_one_channel_and_a_map_of_one_pixel(kernels: ModuleType) -> None:
    x = torch.tensor([3.0, -4.0]).view(1, 2, 1, 1)
    result = kernels.forward(x, 5, 5.0, 0.5, 1.0, 2)
    torch.testing.assert_close(result, x / (1 + x.square()).sqrt())
