"""Activation and normalisation of every network, and the pools of article 1's text."""

import pytest
import torch
from tests.models.test_network_tables import PUBLISHED, SMALLEST, on_meta
from torch import nn

from alexnet_lab.models.alexnet_torchvision import alexnet_torchvision
from alexnet_lab.models.alexnet_ungrouped import alexnet_ungrouped
from alexnet_lab.models.batch_norm import BatchNorm
from alexnet_lab.models.layers import is_activation
from alexnet_lab.models.lrn import LocalResponseNorm
from alexnet_lab.models.table import count_macs, count_parameters, layer_table

ACTIVATIONS = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh}


def kinds(net: nn.Module) -> list[type[nn.Module]]:
    return [type(layer) for layer in net.modules() if not list(layer.children())]


@pytest.mark.parametrize("name", PUBLISHED)
def test_defaults_are_the_published_activation_and_normalisation(name: str) -> None:
    factory = PUBLISHED[name][0]
    published = {
        "activation": "sigmoid" if name == "lenet" else "relu",
        "norm": "lrn" if name in ("original", "caffenet", "bvlc_alexnet") else "none",
    }
    default, stated = (on_meta(factory, **options).state_dict() for options in ({}, published))
    assert list(default) == list(stated)
    assert kinds(on_meta(factory)) == kinds(on_meta(factory, **published))


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_is_the_chosen_one(name: str, activation: str) -> None:
    expected = [kind for kind in kinds(on_meta(PUBLISHED[name][0])) if is_activation(kind)]
    found = [kind for kind in kinds(on_meta(PUBLISHED[name][0], activation=activation)) if is_activation(kind)]
    assert found == [ACTIVATIONS[activation]] * len(expected)


@pytest.mark.parametrize("name", PUBLISHED)
def test_batch_normalisation_is_between_every_convolution_and_its_activation(name: str) -> None:
    found = kinds(on_meta(PUBLISHED[name][0], norm="batch"))
    convolutions = [place for place, kind in enumerate(found) if issubclass(kind, nn.Conv2d)]
    assert len(convolutions) == (2 if name == "lenet" else 5)
    assert [found[place + 1] for place in convolutions] == [BatchNorm] * len(convolutions)
    assert all(is_activation(found[place + 2]) for place in convolutions)
    assert LocalResponseNorm not in found


@pytest.mark.parametrize("name", PUBLISHED)
def test_lrn_follows_the_first_two_activations_and_none_has_neither(name: str) -> None:
    found = kinds(on_meta(PUBLISHED[name][0], norm="lrn"))
    before = [found[place - 1] for place, kind in enumerate(found) if kind is LocalResponseNorm]
    first = nn.Sigmoid if name == "lenet" else nn.ReLU
    assert before == [nn.MaxPool2d if name == "caffenet" else first] * 2
    assert not {LocalResponseNorm, BatchNorm} & set(kinds(on_meta(PUBLISHED[name][0], norm="none")))


@pytest.mark.parametrize("name", PUBLISHED)
def test_empty_batch_trains_with_batch_normalisation(name: str) -> None:
    side = SMALLEST[name]
    net = PUBLISHED[name][0](in_channels=1, num_classes=2, image_size=side, norm="batch", activation="tanh")
    net(torch.empty(0, 1, side, side)).sum().backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in net.parameters())
    assert all(buffer.isfinite().all() for buffer in net.buffers())


def test_torchvisions_names_do_not_move_with_a_normalisation() -> None:
    published = on_meta(alexnet_torchvision).state_dict()
    for norm, places in (("batch", (0, 3, 6, 8, 10)), ("lrn", ())):
        found = on_meta(alexnet_torchvision, norm=norm).state_dict()
        added = {f"features.norm{place}" for place in places}
        assert {name.rpartition(".")[0] for name in found.keys() - published.keys()} == added
        assert {name: tensor.shape for name, tensor in found.items() if name in published} == {
            name: tensor.shape for name, tensor in published.items()
        }


def test_pools_after_every_convolution_are_those_of_the_articles_text() -> None:
    net = on_meta(alexnet_ungrouped, pooling="every_conv")
    rows = {row.name: row for row in layer_table(net, 3, 227)}
    pools = [row for name, row in rows.items() if name.startswith("pool")]
    assert [(row.kernel, row.stride, row.output[-1]) for row in pools] == [
        ((2, 2), (2, 2), side) for side in (27, 13, 6, 3, 1)
    ]
    assert rows["conv1"].output == (96, 55, 55)
    assert rows["flatten"].output == (256,)
    assert rows["fc6"].parameters == 256 * 4096 + 4096
    assert count_parameters(net) == 25_678_184
    assert count_macs(net, 3, 227) == 780_493_344


def test_pools_after_every_convolution_accept_images_from_132_pixels() -> None:
    assert on_meta(alexnet_ungrouped, pooling="every_conv", image_size=132, num_classes=3)(
        torch.empty(1, 3, 132, 132, device="meta")
    ).shape == (1, 3)
    with pytest.raises(ValueError, match=r"model.image_size must be at least 132, got 131"):
        alexnet_ungrouped(pooling="every_conv", image_size=131)
