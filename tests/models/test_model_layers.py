"""Names of layers, the size of their output, and the padding that rounds conv1's output up."""

import itertools

import pytest
import torch
from torch import nn

from alexnet_lab.models.layers import output_side, overhang_pad, row, sequence

WINDOWS: list[tuple[type[nn.Module], dict[str, object]]] = [
    *((nn.Conv2d, {"padding": padding, "dilation": dilation}) for padding in (0, 1, 3) for dilation in (1, 2)),
    (nn.Conv2d, {"padding": "valid"}),
    *(
        (nn.MaxPool2d, {"padding": padding, "dilation": dilation, "ceil_mode": ceil})
        for padding, dilation, ceil in itertools.product((0, 1), (1, 2), (False, True))
    ),
    *((nn.AvgPool2d, {"padding": padding, "ceil_mode": ceil}) for padding in (0, 1) for ceil in (False, True)),
]


def test_no_layer_of_a_row_replaces_another() -> None:
    layers = (nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.ZeroPad2d(1), nn.MaxPool2d(2), nn.GroupNorm(2, 8))
    net = sequence(*row(1, *layers))
    assert list(net) == list(layers)
    assert [name for name, _ in net.named_children()] == ["conv1", "bn1", "act1", "pad1", "pool1", "groupnorm1"]


def test_repeated_name_is_refused() -> None:
    with pytest.raises(ValueError, match="two layers of the network have the same name: conv1, act1"):
        sequence(*row(1, nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Tanh(), nn.MaxPool2d(2)))


@pytest.mark.parametrize(("kind", "options"), WINDOWS)
def test_output_side_is_that_of_torch(kind: type[nn.Module], options: dict[str, object]) -> None:
    channels = (1, 1) if kind is nn.Conv2d else ()
    for side, kernel, stride in itertools.product(range(9, 18), (2, 3), (1, 2, 3)):
        layer = kind(*channels, kernel, stride, **options)
        assert output_side([layer], side) == layer(torch.zeros(1, 1, side, side)).shape[-1], (layer, side)


def test_output_side_of_zfnets_first_rows_and_of_same_padding() -> None:
    first = (nn.Conv2d(3, 96, 7, 2, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1), nn.BatchNorm2d(96))
    assert output_side(first, 224) == nn.Sequential(*first)(torch.zeros(1, 3, 224, 224)).shape[-1] == 55
    assert output_side([nn.Conv2d(1, 1, 5, padding="same"), nn.ZeroPad2d((1, 2, 0, 3))], 20) == 23


@pytest.mark.parametrize(
    "layer",
    [nn.AdaptiveAvgPool2d(6), nn.Flatten(), nn.Upsample(2), nn.MaxPool2d((2, 3)), nn.ZeroPad2d((1, 0, 0, 0))],
    ids=repr,
)
def test_output_side_refuses_what_it_does_not_know(layer: nn.Module) -> None:
    with pytest.raises(TypeError, match=f"output_side.* {type(layer).__name__}"):
        output_side([layer], 20)


@pytest.mark.parametrize(("side", "centred", "pads"), [(224, False, (0, 3, 0, 3)), (224, True, (1, 2, 1, 2))])
def test_224_is_padded_to_227(side: int, centred: bool, pads: tuple[int, ...]) -> None:
    pad = overhang_pad(side, centred=centred)
    assert isinstance(pad, nn.ZeroPad2d)
    assert pad.padding == pads
    assert isinstance(overhang_pad(227, centred=centred), nn.Identity)
