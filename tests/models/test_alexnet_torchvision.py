"""torchvision's network compared with torchvision."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from alexnet_lab.errors import UserError
from alexnet_lab.models.alexnet_torchvision import MeanOverBins, alexnet_torchvision


@pytest.fixture(scope="module")
def twin() -> nn.Module:
    """torchvision's network, with random weights and few classes."""
    from torchvision.models import alexnet

    torch.manual_seed(0)
    return alexnet(num_classes=4).eval()


def with_weights_of(twin: nn.Module, side: int) -> nn.Module:
    net = alexnet_torchvision(num_classes=4, image_size=side)
    net.load_state_dict(twin.state_dict())
    return net


@torch.no_grad()
@pytest.mark.parametrize("side", [224, 96])
def test_same_names_and_bitwise_same_logits_as_torchvision(twin: nn.Module, side: int) -> None:
    net = with_weights_of(twin, side).eval()
    state = net.state_dict()
    assert list(state) == list(twin.state_dict())
    assert len(state) == 16
    x = torch.randn(2, 3, side, side)
    assert torch.equal(net(x), twin(x))


def test_same_initialisation_as_torchvision(twin: nn.Module) -> None:
    torch.manual_seed(0)
    net = alexnet_torchvision(num_classes=4)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(net.parameters(), twin.parameters(), strict=True))


def test_same_dropout_as_torchvision(twin: nn.Module) -> None:
    net = with_weights_of(twin, 224)
    x = torch.randn(2, 3, 64, 64)
    logits = []
    for module in (net, twin):
        torch.manual_seed(1)
        logits.append(module.train()(x))
        module.eval()
    assert torch.equal(*logits)


def test_network_itself_loads_no_weights() -> None:
    with torch.device("meta"), pytest.raises(UserError, match=r"pretrained=True: .* a run does, with init=torchvision"):
        alexnet_torchvision(pretrained=True)


def test_network_does_not_import_torchvision() -> None:
    code = "import sys, alexnet_lab.models.alexnet_torchvision; sys.exit('torchvision' in sys.modules)"
    src = Path(__file__).parents[2] / "src"
    assert subprocess.run([sys.executable, "-c", code], cwd=src, timeout=60).returncode == 0


@pytest.mark.parametrize("side", [1, 4, 6, 7, 13])
def test_deterministic_pool_equals_the_usual_one_forward_and_backward(side: int) -> None:
    images = torch.randn(2, 3, side, side + 1, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    usual = MeanOverBins()(images)
    torch.testing.assert_close(usual, nn.AdaptiveAvgPool2d((6, 6))(images))
    torch.use_deterministic_algorithms(True)
    try:
        deterministic = MeanOverBins()(images)
    finally:
        torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(deterministic, usual)
    gradients = [torch.autograd.grad((pooled * weights).sum(), images)[0] for pooled in (usual, deterministic)]
    torch.testing.assert_close(*gradients)


def test_pool_of_the_native_size_returns_its_input() -> None:
    images = torch.randn(1, 3, 6, 6)
    assert MeanOverBins()(images) is images
