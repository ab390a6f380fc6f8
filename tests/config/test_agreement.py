"""A network that does not match the data is refused before training, whichever of the two was overridden."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from alexnet_lab.commands.describe import describe
from alexnet_lab.config.agreement import agreeing_layers
from alexnet_lab.errors import UserError

MODEL = {"in_channels": 3, "num_classes": 10, "image_size": 8}


def network(channels: int = 3, classes: int = 10, size: int = 8) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, classes))


def test_layers_of_a_matching_network_are_returned() -> None:
    (linear,) = [row for row in agreeing_layers(network(), MODEL, 3, 8, 10) if row.kind == "Linear"]
    assert linear.output == (10,)


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ((1, 8, 10), "model.in_channels=3, but the data has channels=1; omit model.in_channels, which follows data."),
        ((3, 9, 10), "model.image_size=8, but the data has image_size=9; omit data.image_size, which follows model."),
        ((3, 8, 9), "model.num_classes=10, but the data has num_classes=9; omit model.num_classes, which follows"),
        ((3, 8, 99), "model.num_classes=10, but the data has num_classes=99; omit model.num_classes, which follows"),
    ],
)
def test_settings_of_the_network_must_match_the_data(data: tuple[int, int, int], line: str) -> None:
    with pytest.raises(UserError) as raised:
        agreeing_layers(network(), MODEL, *data)
    assert str(raised.value).startswith(line)


MUST_RETURN = "model: the network must return [1, 10] for one of the images of 3 x 8 x 8"


class Pair(nn.Module):
    """A user's network with two outputs."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return images, images


@pytest.mark.parametrize(
    ("net", "line"),
    [
        (
            network(channels=1),
            "model: the network cannot process images of 3 x 8 x 8: mat1 and mat2 shapes cannot be mul",
        ),
        (network(size=9), "model: the network cannot process images of 3 x 8 x 8: "),
        (
            network(classes=5),
            "model: the network must return [1, 10] for one of the images of 3 x 8 x 8, got [1, 5]",
        ),
        (
            nn.Identity(),
            "model: the network must return [1, 10] for one of the images of 3 x 8 x 8, got [1, 3, 8, 8]",
        ),
        (Pair(), "model: the network must return [1, 10] for one of the images of 3 x 8 x 8, got tuple"),
    ],
)
def test_network_without_these_settings_is_tried_with_one_image(net: nn.Module, line: str) -> None:
    with pytest.raises(UserError) as raised:
        agreeing_layers(net, {}, 3, 8, 10)
    assert str(raised.value).startswith(line)


def test_network_is_tried_on_the_meta_device_too() -> None:
    with torch.device("meta"), pytest.raises(UserError, match=r"got \[1, 5\]"):
        agreeing_layers(network(classes=5), {}, 3, 8, 10)


DISAGREEING = ["model.num_classes=5", "model.num_classes=20", "model.in_channels=1", "data.image_size=40"]


@pytest.mark.parametrize("override", [*DISAGREEING, "data.channels=1,model.in_channels=3", "data.mean=[0.1,0.2]"])
def test_run_ends_in_one_line_before_it_trains(
    override: str, settings: Callable[..., dict[str, Any]], refusal: Callable[..., str]
) -> None:
    overrides = override.split(",") if "[" not in override else [override]
    found = settings("model=lenet", "data=synthetic", "logger=none", "trainer=cpu", *overrides)
    (line,) = refusal(found).splitlines()
    assert line.startswith("error: ")


@pytest.mark.parametrize("override", DISAGREEING)
def test_describe_refuses_a_network_that_does_not_match_the_data(override: str, composed: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match=r"but the data has"):
        describe(composed("describe", "model=lenet", "data=synthetic", override))


def test_describe_refuses_a_wrong_option_of_the_data(composed: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match=r"data\.crop_size: .* has no such option"):
        describe(composed("describe", "model=lenet", "data=synthetic", "+data.crop_size=24"))
