"""Local response normalisation compared with the formula, separate towers and PyTorch, forward and backward."""

import warnings
from typing import Any

import pytest
import torch
from functorch.compile import make_boxed_func
from torch import Tensor, fx, nn
from torch._dynamo.backends.common import aot_autograd

from alexnet_lab.models import lrn
from alexnet_lab.models.lrn import LocalResponseNorm, _kernels

FORMATS = [torch.contiguous_format, torch.channels_last]


def by_hand(x: torch.Tensor, size: int, alpha: float, beta: float, k: float) -> torch.Tensor:
    """The paper's formula written out over channels, alpha not divided, in float64."""
    x = x.double()
    out = torch.empty_like(x)
    channels = x.shape[1]
    for i in range(channels):
        window = x[:, max(0, i - size // 2) : min(channels - 1, i + size // 2) + 1]
        out[:, i] = x[:, i] / (k + alpha * window.square().sum(1)) ** beta
    return out


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine where Triton cannot compile")
def test_without_a_compiler_for_the_kernels_one_line_says_so(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("triton")
    assert _kernels.__wrapped__() is None
    (line,) = caplog.messages
    assert line.endswith("(it needs a C compiler and Python's headers; in Debian, gcc and python3-dev)")


def test_lrn_matches_hand_computed_values() -> None:
    x = torch.tensor([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1)
    y = LocalResponseNorm(size=3, alpha=3.0, beta=1.0, k=1.0)(x).flatten()
    # Sums of squares over the neighbours: 1 + 4, 1 + 4 + 9, 4 + 9.
    torch.testing.assert_close(y, torch.tensor([1 / 6, 2 / 15, 3 / 14]))


def test_lrn_matches_the_paper_formula_with_alpha_times_size() -> None:
    x = 30 * torch.randn(2, 12, 3, 4)
    y = LocalResponseNorm(size=5, alpha=5 * 1e-4, beta=0.75, k=2.0)(x)
    torch.testing.assert_close(y.double(), by_hand(x, 5, 1e-4, 0.75, 2.0), rtol=2e-6, atol=1e-6)


def test_lrn_defaults_match_the_2012_code() -> None:
    x = 100 * torch.randn(2, 8, 3, 3)
    torch.testing.assert_close(LocalResponseNorm()(x).double(), by_hand(x, 5, 2e-5, 0.75, 2.0), rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 4, 5, 9])
def test_lrn_with_one_group_equals_pytorch(size: int) -> None:
    x = 50 * torch.randn(2, 7, 4, 3)
    expected = nn.LocalResponseNorm(size, alpha=1e-3, beta=0.5, k=1.5)(x)
    torch.testing.assert_close(LocalResponseNorm(size, 1e-3, 0.5, 1.5)(x), expected)


def test_towers_are_normalised_separately() -> None:
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


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize(
    ("size", "beta", "groups"), [(1, 0.75, 1), (2, 0.75, 1), (3, 0.5, 2), (4, 1.0, 2), (9, 0.75, 2)]
)
def test_lrn_gradient_passes_gradcheck(memory_format: torch.memory_format, size: int, beta: float, groups: int) -> None:
    x = torch.randn(2, 6, 2, 3, dtype=torch.float64).contiguous(memory_format=memory_format).requires_grad_()
    assert torch.autograd.gradcheck(LocalResponseNorm(size, alpha=0.5, beta=beta, groups=groups), x)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize(("scale", "size"), [(1, 5), (30, 4), (300, 5)])
def test_lrn_is_as_exact_as_pytorchs(memory_format: torch.memory_format, scale: float, size: int) -> None:
    """Several chunks, the last one incomplete: y and dy/dx compared with float64 and PyTorch."""
    x, grad = (torch.randn(3, 96, 61, 61).contiguous(memory_format=memory_format) for _ in range(2))
    ours, theirs = LocalResponseNorm(size), nn.LocalResponseNorm(size, k=2.0)
    exact = with_gradient(theirs, (scale * x).double(), grad.double())
    own, peer = with_gradient(ours, scale * x, grad), with_gradient(theirs, scale * x, grad)
    for mine, other, right in zip(own, peer, exact, strict=True):
        assert (mine - other).abs().max() <= 1e-6 * other.abs().max()
        assert (mine - right).norm() <= 1.001 * (other - right).norm()
        assert (mine - right).abs().max() <= 1.1 * (other - right).abs().max()  # a single value may be lucky


def with_gradient(norm: nn.Module, x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    x = x.detach().requires_grad_()
    y = norm(x)
    (dx,) = torch.autograd.grad(y, x, grad)
    return y.detach(), dx


@pytest.mark.parametrize("size", [1, 2, 5])
def test_lrn_of_no_images_is_empty(size: int) -> None:
    x = torch.empty(0, 4, 3, 3, requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y = LocalResponseNorm(size, groups=2)(x)
        (dx,) = torch.autograd.grad(y.sum(), x)
    assert y.shape == dx.shape == x.shape


def test_lrn_saves_only_its_input() -> None:
    x = torch.randn(2, 8, 3, 3).relu_().requires_grad_()
    saved: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor.data_ptr()), lambda _: x):
        LocalResponseNorm(groups=2)(x)
    assert saved == [x.data_ptr()]


def test_lrn_of_a_strided_view_and_gradient() -> None:
    x, grad = torch.randn(2, 3, 8, 6, requires_grad=True), torch.randn(2, 8, 3, 4)
    ours = torch.autograd.grad(LocalResponseNorm(alpha=0.1)(x.transpose(1, 2)[..., 1:5]), x, grad)
    theirs = torch.autograd.grad(nn.LocalResponseNorm(5, alpha=0.1, k=2.0)(x.transpose(1, 2)[..., 1:5]), x, grad)
    torch.testing.assert_close(ours, theirs)


def test_lrn_has_a_second_derivative() -> None:
    x = torch.randn(2, 4, 1, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(LocalResponseNorm(size=3, alpha=0.5, groups=2), x)


def test_groups_that_do_not_divide_the_channels_are_refused() -> None:
    with pytest.raises(RuntimeError, match="unflatten"):
        LocalResponseNorm(groups=3)(torch.randn(1, 8, 2, 2))


@pytest.mark.parametrize("memory_format", FORMATS)
def test_network_compiled_for_a_gpu_uses_one_operator_per_pass_without_copies(
    memory_format: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lrn, "_has_kernels", lambda x: True)
    monkeypatch.setattr(lrn, "_kernels", lambda: None)  # the operator, with the computation of a CPU
    x = (10 * torch.randn(2, 8, 6, 6)).to(memory_format=memory_format).requires_grad_()
    constants = (5, 1e-2, 0.75, 2.0, 2)
    torch.library.opcheck(lrn._operator, (x, *constants))
    net = nn.Sequential(nn.ReLU(), LocalResponseNorm(*constants), nn.MaxPool2d(3, 2))
    grad = torch.ones(2, 8, 2, 2)
    expected = with_gradient(net, x, grad)
    calls: list[tuple[str, list[bool]]] = []  # each operation, and whether its maps have the format of x

    def record(graph: fx.GraphModule, inputs: list[Tensor]) -> Any:
        for node in graph.graph.nodes:
            if isinstance(node.target, torch._ops.OpOverload) and node.target.name() != "aten::detach":
                maps = [value.meta["val"] for value in node.all_input_nodes]
                calls.append((node.target.name(), [m.is_contiguous(memory_format=memory_format) for m in maps]))
        return make_boxed_func(graph.forward)

    compiled = torch.compile(net, backend=aot_autograd(fw_compiler=record), fullgraph=True)
    assert all(map(torch.equal, with_gradient(compiled, x, grad), expected))
    assert calls == [
        ("aten::relu", [True]),
        ("alexnet_lab::local_response_norm", [True]),
        ("aten::max_pool2d_with_indices", [True]),
        ("aten::max_pool2d_with_indices_backward", [True, True, True]),
        ("alexnet_lab::local_response_norm_gradient", [True, True]),
        ("aten::threshold_backward", [True, True]),
    ]
    operations = {str(node.target) for node in torch.export.export(net, (x.detach(),)).graph.nodes}
    assert not any("alexnet_lab" in operation for operation in operations)


@pytest.mark.smoke
def test_lrn_is_compiled_and_exported_as_operations_of_pytorch() -> None:
    x = (10 * torch.randn(2, 8, 4, 4)).requires_grad_()
    norm = LocalResponseNorm(groups=2)
    expected, slope = with_gradient(norm, x, torch.ones_like(x))
    compiled = torch.compile(norm, backend="aot_eager", fullgraph=True)
    for ours, composed in zip((expected, slope), with_gradient(compiled, x, torch.ones_like(x)), strict=True):
        torch.testing.assert_close(composed, ours)
    program = torch.export.export(norm, (x.detach(),))
    torch.testing.assert_close(program.module()(x.detach()), expected)
    operations = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert all(operation.startswith("aten.") for operation in operations), operations


def test_lrn_of_an_empty_batch() -> None:
    x = torch.empty(0, 8, 3, 3, requires_grad=True)
    y = LocalResponseNorm(groups=2)(x)
    y.sum().backward()
    assert y.shape == x.shape
    assert x.grad is not None
