"""Checks that a network accepts the images of a dataset and returns one logit per class."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from alexnet_lab.errors import UserError
from alexnet_lab.models.table import LayerRow, run_once

FOLLOWERS = {
    "in_channels": ("model.in_channels", "data.channels"),
    "image_size": ("data.image_size", "model.image_size"),
    "num_classes": ("model.num_classes", "data.num_classes"),
}
"""By setting of the network: the option that follows by default, and the option that it follows."""


def agreeing_layers(
    net: nn.Module, model: Mapping[str, Any], channels: int, image_size: int, num_classes: int
) -> list[LayerRow]:
    """The layers of `net` for one image of the data; `model` contains the settings that it was built from.

    Raises:
        UserError: the settings contradict the data, the network cannot process images of
            [channels, image_size, image_size], or it does not return `num_classes` logits per image.
    """
    facts = {"in_channels": channels, "image_size": image_size, "num_classes": num_classes}
    for key, fact in facts.items():
        if model.get(key, fact) != fact:
            follower, owner = FOLLOWERS[key]
            raise UserError(
                f"model.{key}={model[key]}, but the data has {key.removeprefix('in_')}={fact}; omit {follower}, which "
                f"follows {owner}"
            )
    images = f"images of {channels} x {image_size} x {image_size}"
    try:
        layers, output = run_once(net, channels, image_size)
    except RuntimeError as error:
        raise UserError(f"model: the network cannot process {images}: {error}") from error
    if not isinstance(output, Tensor) or tuple(output.shape) != (1, num_classes):
        shape = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise UserError(f"model: the network must return [1, {num_classes}] for one of the {images}, got {shape}")
    return layers
