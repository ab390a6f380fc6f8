"""Local response normalisation on the device, against float64."""

from typing import Any

import pytest

LIMITS = {"float32": 1e-5, "bfloat16": 2**-7, "float16": 2**-10}


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("memory_format", ["contiguous_format", "channels_last"])
@pytest.mark.parametrize("size", range(2, 10))
def test_normalisation_equals_float64(device: str, size: int, memory_format: str, dtype: str) -> None:
    import torch

    from alexnet_lab.models.lrn import local_response_norm

    generator = torch.Generator().manual_seed(size)
    for shape, groups, beta in (((3, 96, 7, 5), 2, 0.75), ((2, 20, 5, 5), 1, 0.5), ((0, 96, 7, 5), 2, 0.75)):
        x, grad = (50 * torch.randn(2, *shape, generator=generator)).to(device, getattr(torch, dtype))
        x, grad = (one.contiguous(memory_format=getattr(torch, memory_format)) for one in (x, grad))
        found, exact = (
            _with_gradient(lambda y: local_response_norm(y, size, 1e-2, beta, 2.0, groups), *pair)  # noqa: B023
            for pair in ((x, grad), (x.cpu().double(), grad.cpu().double()))
        )
        for value, right in zip(found, exact, strict=True):
            assert (value.dtype, value.stride()) == (x.dtype, x.stride())
            error = (value.cpu().double() - right).norm() / right.norm().clamp(min=1e-30)
            assert float(error) < LIMITS[dtype]


def _with_gradient(function: Any, x: Any, grad: Any) -> tuple[Any, Any]:
    import torch

    x = x.detach().requires_grad_()
    y = function(x)
    return y.detach(), torch.autograd.grad(y, x, grad)[0]
