"""A grouped convolution computed as one over all channels, as a GPU does in half precision."""

import torch

from alexnet_lab.models.layers import GroupedConv2d


def test_one_convolution_over_all_channels_equals_the_grouped_one_with_gradients() -> None:
    for groups in (2, 3):
        layer = GroupedConv2d(6, 12, 3, padding=1, groups=groups).double()
        images = torch.randn(2, 6, 5, 5, dtype=torch.float64, requires_grad=True)
        inputs = (images, *layer.parameters())
        grouped, whole = layer(images), layer._conv_forward_whole(images)
        torch.testing.assert_close(whole, grouped)
        gradients = [torch.autograd.grad(output.square().sum(), inputs) for output in (grouped, whole)]
        torch.testing.assert_close(*gradients)


def test_cpu_uses_pytorchs_convolution() -> None:
    torch.manual_seed(0)
    layer = GroupedConv2d(4, 4, 3, groups=2)
    plain = torch.nn.Conv2d(4, 4, 3, groups=2)
    plain.load_state_dict(layer.state_dict())
    images = torch.randn(1, 4, 6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(images), plain(images))
