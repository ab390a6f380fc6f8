"""Convolutions as a GPU computes them in half precision equal PyTorch's."""

from typing import Any

import pytest
import torch

from alexnet_lab.models.layers import GroupedConv2d, StridedConv2d


def assert_equal_with_gradients(layer: torch.nn.Conv2d, other: Any, images: torch.Tensor) -> None:
    inputs = (images.requires_grad_(), *layer.parameters())
    outputs = torch.nn.Conv2d.forward(layer, images), other(images)
    torch.testing.assert_close(*outputs)
    torch.testing.assert_close(*(torch.autograd.grad(output.square().sum(), inputs) for output in outputs))


@pytest.mark.parametrize("groups", [2, 3])
def test_one_convolution_over_all_channels_equals_the_grouped_one(groups: int) -> None:
    layer = GroupedConv2d(6, 12, 3, padding=1, groups=groups).double()
    assert_equal_with_gradients(layer, layer._conv_forward_whole, torch.randn(2, 6, 5, 5, dtype=torch.float64))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("side", "padding"), [(27, 0), (24, 2), (25, 1), (26, 0), (224 // 4, 2), (11, 0)])
def test_convolution_of_blocks_equals_the_strided_one(channels: int, side: int, padding: int) -> None:
    layer = StridedConv2d(channels, 5, 11, stride=4, padding=padding).double()
    images = torch.randn(2, channels, side, side + 3, dtype=torch.float64).to(memory_format=torch.channels_last)
    assert_equal_with_gradients(layer, layer._conv_forward_in_blocks, images)


def test_convolution_of_blocks_keeps_channels_last() -> None:
    layer = StridedConv2d(3, 8, 11, stride=4, padding=2)
    images = torch.randn(2, 3, 64, 64).to(memory_format=torch.channels_last)
    assert layer._conv_forward_in_blocks(images).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("kind", [GroupedConv2d, StridedConv2d])
def test_cpu_uses_pytorchs_convolution(kind: type[torch.nn.Conv2d]) -> None:
    options: dict[str, Any] = {"groups": 2} if kind is GroupedConv2d else {"stride": 2}
    layer, plain = kind(4, 4, 3, **options), torch.nn.Conv2d(4, 4, 3, **options)
    plain.load_state_dict(layer.state_dict())
    images = torch.randn(1, 4, 6, 6).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(images), plain(images))
