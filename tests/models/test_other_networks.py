"""Initialisation of the networks without switches, and the Keras article's padding."""

import pytest
import torch
from torch import nn

from alexnet_lab.models.alexnet_d2l import alexnet_d2l
from alexnet_lab.models.alexnet_half import alexnet_half_v2
from alexnet_lab.models.alexnet_ungrouped import alexnet_ungrouped
from alexnet_lab.models.lenet import lenet


def fans(layer: nn.Module) -> tuple[int, int]:
    window = layer.weight[0, 0].numel() if isinstance(layer, nn.Conv2d) else 1
    return layer.weight.shape[1] * window, layer.weight.shape[0] * window


def assert_uniform(values: torch.Tensor, bound: float) -> None:
    values = values.detach()
    assert values.abs().max() <= bound * (1 + 1e-6)
    error = bound / (3 * values.numel()) ** 0.5  # standard error of the mean; that of the std is smaller
    assert abs(values.mean()) < 5 * error
    assert values.std() == pytest.approx(bound / 3**0.5, abs=5 * error)


def weighted(net: nn.Module) -> list[nn.Module]:
    return [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]


@pytest.mark.parametrize(("factory", "side"), [(alexnet_d2l, 65), (lenet, 28)])
def test_d2l_is_initialised_xavier_uniform_with_default_biases(factory, side: int) -> None:
    for layer in weighted(factory(image_size=side)):
        fan_in, fan_out = fans(layer)
        assert_uniform(layer.weight, (6 / (fan_in + fan_out)) ** 0.5)
        assert_uniform(layer.bias, fan_in**-0.5)


def test_half_is_initialised_glorot_uniform_with_zero_biases() -> None:
    for layer in weighted(alexnet_half_v2(num_classes=5, image_size=64)):
        assert_uniform(layer.weight, (6 / sum(fans(layer))) ** 0.5)
        assert not layer.bias.any()


def test_ungrouped_is_initialised_with_pytorchs_default() -> None:
    for layer in weighted(alexnet_ungrouped(num_classes=5, image_size=64)):
        assert_uniform(layer.weight, fans(layer)[0] ** -0.5)
        assert_uniform(layer.bias, fans(layer)[0] ** -0.5)


def test_half_pads_one_left_and_top_and_two_right_and_bottom() -> None:
    with torch.device("meta"):
        pad = alexnet_half_v2().pad
    padded = pad(torch.ones(1, 3, 224, 224))
    assert padded.shape == (1, 3, 227, 227)
    assert padded[0, 0, 1:225, 1:225].all()
    assert padded.sum() == 3 * 224 * 224


@torch.no_grad()
def test_lenet_equals_its_explicit_definition() -> None:
    net = lenet()
    x = torch.rand(3, 1, 28, 28)
    w = dict(net.named_parameters())
    h = torch.sigmoid(nn.functional.conv2d(x, w["conv1.weight"], w["conv1.bias"], padding=2))
    h = h.reshape(3, 6, 14, 2, 14, 2).mean((3, 5))
    h = torch.sigmoid(nn.functional.conv2d(h, w["conv2.weight"], w["conv2.bias"]))
    h = h.reshape(3, 16, 5, 2, 5, 2).mean((3, 5)).flatten(1)
    for name in ("fc3", "fc4"):
        h = torch.sigmoid(h @ w[f"{name}.weight"].T + w[f"{name}.bias"])
    torch.testing.assert_close(net(x), h @ w["fc5.weight"].T + w["fc5.bias"])
