"""Local response normalisation against the formula, the towers and PyTorch; padding; initialisers."""

import pytest
import torch
from torch import nn

from alexnet_lab.models.layers import LocalResponseNorm, overhang_pad


def by_hand(x: torch.Tensor, size: int, alpha: float, beta: float, k: float) -> torch.Tensor:
    """The paper's formula written out over channels, alpha not divided, in float64."""
    x = x.double()
    out = torch.empty_like(x)
    channels = x.shape[1]
    for i in range(channels):
        window = x[:, max(0, i - size // 2) : min(channels - 1, i + size // 2) + 1]
        out[:, i] = x[:, i] / (k + alpha * window.square().sum(1)) ** beta
    return out


def test_lrn_of_hand_computed_values() -> None:
    x = torch.tensor([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1)
    y = LocalResponseNorm(size=3, alpha=3.0, beta=1.0, k=1.0)(x).flatten()
    # Sums of squares over the neighbours: 1 + 4, 1 + 4 + 9, 4 + 9.
    torch.testing.assert_close(y, torch.tensor([1 / 6, 2 / 15, 3 / 14]))


def test_lrn_matches_the_paper_formula_with_alpha_times_size() -> None:
    x = 30 * torch.randn(2, 12, 3, 4)
    y = LocalResponseNorm(size=5, alpha=5 * 1e-4, beta=0.75, k=2.0)(x)
    torch.testing.assert_close(y.double(), by_hand(x, 5, 1e-4, 0.75, 2.0), rtol=2e-6, atol=1e-6)


def test_lrn_defaults_are_those_of_the_code_that_won() -> None:
    x = 100 * torch.randn(2, 8, 3, 3)
    torch.testing.assert_close(LocalResponseNorm()(x).double(), by_hand(x, 5, 2e-5, 0.75, 2.0), rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 4, 5, 9])
def test_lrn_of_one_group_equals_pytorch(size: int) -> None:
    x = 50 * torch.randn(2, 7, 4, 3)
    expected = nn.LocalResponseNorm(size, alpha=1e-3, beta=0.5, k=1.5)(x)
    torch.testing.assert_close(LocalResponseNorm(size, 1e-3, 0.5, 1.5)(x), expected)


def test_each_tower_is_normalised_by_itself() -> None:
    x = 100 * torch.randn(2, 96, 5, 5)
    towers, one = LocalResponseNorm(groups=2)(x), LocalResponseNorm()(x)
    torch.testing.assert_close(towers, torch.cat([LocalResponseNorm()(tower) for tower in x.chunk(2, 1)], dim=1))
    differing = (towers - one).abs().amax((0, 2, 3)) > 1e-3
    assert differing.nonzero().flatten().tolist() == [46, 47, 48, 49]


def test_lrn_keeps_dtype_and_memory_format() -> None:
    x = torch.randn(2, 8, 4, 6)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        for dtype in (torch.float64, torch.float32, torch.bfloat16):
            y = LocalResponseNorm(groups=2)(x.to(dtype, memory_format=memory_format))
            assert y.dtype == dtype
            assert y.is_contiguous(memory_format=memory_format)


def test_lrn_under_autocast_is_as_exact_as_bfloat16_allows() -> None:
    x = (100 * torch.randn(2, 8, 4, 4)).bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = LocalResponseNorm()(x)
    exact = by_hand(x.detach(), 5, 2e-5, 0.75, 2.0)
    torch.testing.assert_close(y.double(), exact, rtol=2**-8, atol=0)
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_lrn_gradient_is_right() -> None:
    x = torch.randn(2, 6, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(LocalResponseNorm(size=3, alpha=0.5, groups=2), x)


def test_lrn_of_an_empty_batch() -> None:
    x = torch.empty(0, 8, 3, 3, requires_grad=True)
    y = LocalResponseNorm(groups=2)(x)
    y.sum().backward()
    assert y.shape == x.shape
    assert x.grad is not None


@pytest.mark.parametrize(("side", "centred", "pads"), [(224, False, (0, 3, 0, 3)), (224, True, (1, 2, 1, 2))])
def test_224_is_padded_to_227(side: int, centred: bool, pads: tuple[int, ...]) -> None:
    pad = overhang_pad(side, centred=centred)
    assert isinstance(pad, nn.ZeroPad2d)
    assert pad.padding == pads
    assert isinstance(overhang_pad(227, centred=centred), nn.Identity)
