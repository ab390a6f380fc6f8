"""The layer table: its contents, and that it does not change the network."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from alexnet_lab.description.network import Described, cells
from alexnet_lab.models.alexnet_d2l import alexnet_d2l
from alexnet_lab.models.alexnet_half import alexnet_half_v1, alexnet_half_v2
from alexnet_lab.models.alexnet_original import alexnet_original
from alexnet_lab.models.alexnet_ungrouped import alexnet_ungrouped
from alexnet_lab.models.caffenet import caffenet
from alexnet_lab.models.lenet import lenet
from alexnet_lab.models.lrn import LocalResponseNorm
from alexnet_lab.models.table import count_macs, count_parameters, layer_table


def network_of(net: nn.Module, in_channels: int, side: int, classes: int) -> Described:
    rows = layer_table(net, in_channels, side)
    return Described("net", "net", (in_channels, side, side), classes, rows, count_parameters(net))


def test_table_has_the_form_of_the_papers() -> None:
    with torch.device("meta"):
        lines = list(cells(network_of(alexnet_half_v1(), 3, 224, 1000)))
    assert lines[0] == ["pad", "ZeroPad2d", "3 x 224 x 224", "", "", "1,2,1,2", "", "3 x 227 x 227", "1", "", "", ""]
    conv1 = ["11x11", "4", "0", "1", "48 x 55 x 55", "11", "17,472", "69,888", "52,707,600"]
    assert lines[1] == ["conv1", "Conv2d", "3 x 227 x 227", *conv1]
    assert lines[-3][7:] == ["1000", "224", "2,049,000", "8,196,000", "2,048,000"]
    assert lines[-2] == ["softmax", "in the loss", "1000", "", "", "", "", "1000", "224", "", "", ""]
    assert lines[-1] == ["total", *[""] * 8, "16,630,440", "66,521,760", "311,191,824"]


def test_padding_given_as_a_word_is_shown_in_numbers() -> None:
    net = nn.Sequential(nn.Conv2d(1, 1, 3, padding="same"), nn.Conv2d(1, 1, 4, padding="same"))
    assert [row.padding for row in layer_table(net, 1, 8)] == [(1, 1), (1, 2, 1, 2)]


class Opaque(nn.Module):
    """A layer of a user, with attributes of other types than PyTorch's."""

    stride, padding, groups, kernel_size = "wide", None, "many", torch.ones(2)

    def forward(self, maps: Tensor) -> Tensor:
        return maps


class Branches(nn.Module):
    """Two branches that are added, and what cannot be followed."""

    def __init__(self, last: nn.Module) -> None:
        super().__init__()
        self.near, self.far, self.last = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(1, 2, 5, padding=2), last
        self.after = nn.Conv2d(2, 1, 3)

    def forward(self, images: Tensor) -> Tensor:
        maps = nn.functional.relu(self.near(images)) + self.far(images)
        return self.after(self.last(maps))


def test_branches_have_the_larger_field_and_what_is_unknown_has_none() -> None:
    def fields(last: nn.Module) -> list[tuple[int, ...]]:
        return [row.receptive_field for row in layer_table(Branches(last), 1, 20)]

    assert fields(nn.ReLU()) == [(3, 3), (5, 5), (5, 5), (7, 7)]
    assert fields(Opaque()) == [(3, 3), (5, 5), (), ()]


def seen_by_the_centre(net: nn.Module, channels: int, side: int, until: str) -> tuple[int, int]:
    """The rows and columns of the image that the centre of the output of the layer `until` depends on."""
    layers: list[nn.Module] = []
    for name, layer in net.eval().named_children():
        # A max pool has a gradient at one place of its window only, and an activation may be flat.
        flat = isinstance(layer, nn.ReLU | nn.Sigmoid | LocalResponseNorm)
        is_pool = isinstance(layer, nn.MaxPool2d)
        layers.append(nn.Identity() if flat else nn.AvgPool2d(layer.kernel_size, layer.stride) if is_pool else layer)
        if name == until:
            break
    for parameter in net.parameters():
        nn.init.constant_(parameter, 0.01)
    image = torch.zeros(1, channels, side, side, dtype=torch.float64, requires_grad=True)
    maps = nn.Sequential(*layers).double()(image)
    maps[0, 0, maps.shape[2] // 2, maps.shape[3] // 2].backward()
    assert image.grad is not None
    seen = image.grad[0].abs().sum(0) > 0
    return int(seen.any(1).sum()), int(seen.any(0).sum())


AS_ALEXNET = {"conv1": 11, "pool1": 19, "conv2": 51, "pool2": 67, "conv3": 99, "conv4": 131, "conv5": 163, "pool5": 195}


@pytest.mark.parametrize("build", [alexnet_original, alexnet_ungrouped, alexnet_d2l, alexnet_half_v1, caffenet])
def test_receptive_fields_of_the_alexnets_are_the_known_ones(build: Callable[..., nn.Module]) -> None:
    with torch.device("meta"):
        net = build(in_channels=1, image_size=224)
        rows = layer_table(net, 1, 224)
    assert {row.name: row.receptive_field for row in rows if row.name in AS_ALEXNET} == {
        name: (size, size) for name, size in AS_ALEXNET.items()
    }


@pytest.mark.parametrize(
    ("build", "side", "layers"),
    [
        (lenet, 28, ("conv1", "pool1", "conv2", "pool2")),
        (alexnet_d2l, 224, ("pool1", "conv2", "pool2", "conv3", "conv5")),
        (alexnet_half_v2, 224, ("conv1", "pool2", "conv3")),
        (partial(alexnet_ungrouped, pooling="every_conv"), 227, ("pool2", "conv3", "pool3", "conv4")),
    ],
)
def test_receptive_field_is_that_of_the_gradient(
    build: Callable[..., nn.Module], side: int, layers: tuple[str, ...]
) -> None:
    net = build(in_channels=1, num_classes=2, image_size=side)
    fields = {row.name: row.receptive_field for row in layer_table(net, 1, side)}
    assert {name: fields[name] for name in layers} == {name: seen_by_the_centre(net, 1, side, name) for name in layers}
    assert next(field for name, field in fields.items() if name.startswith("fc")) == (side, side)


def test_dropout_keeps_the_receptive_field_and_has_a_row_if_it_drops_something() -> None:
    for kind in (nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout):
        for p in (0.0, 0.5):
            rows = layer_table(nn.Sequential(nn.Conv2d(1, 2, 3), kind(p), nn.Conv2d(2, 2, 3)), 1, 8)
            assert [row.kind for row in rows] == ["Conv2d", *([kind.__name__] if p else []), "Conv2d"]
            assert rows[-1].receptive_field == (5, 5)


def test_network_is_unchanged() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2).eval(), nn.Dropout(0.5))
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    random = torch.get_rng_state()
    layer_table(net, 1, 8)
    assert [m.training for m in net.modules()] == [True, True, False, True]
    assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(m._forward_hooks for m in net.modules())
    assert all(p.grad is None for p in net.parameters())


def test_macs_for_groups_and_dtypes() -> None:
    net = nn.Sequential(nn.Conv2d(4, 6, (3, 1), groups=2), nn.Flatten(), nn.Linear(6 * 3 * 5, 7)).bfloat16()
    assert count_macs(net, 4, 5) == (4 // 2 * 3) * (6 * 3 * 5) + 6 * 3 * 5 * 7


def test_rows_follow_the_forward_pass() -> None:
    names = [row.name for row in layer_table(lenet(), 1, 28)]
    assert names[:6] == ["conv1", "act1", "pool1", "conv2", "act2", "pool2"]
    assert names[-1] == "fc5"
