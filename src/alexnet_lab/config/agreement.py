"""Whether a network takes the images of a dataset and gives one logit for each of its classes."""

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
"""By setting of the network, what follows what where nobody states it."""


def agreeing_layers(
    net: nn.Module, model: Mapping[str, Any], channels: int, image_size: int, num_classes: int
) -> list[LayerRow]:
    """The layers of `net` for one image of the data; `model` are the settings that it was built from.

    Raises:
        UserError: the settings state other facts than the data's, the network cannot read images of
            [channels, image_size, image_size], or it does not give `num_classes` logits for each.
    """
    facts = {"in_channels": channels, "image_size": image_size, "num_classes": num_classes}
    for key, fact in facts.items():
        if model.get(key, fact) != fact:
            follower, owner = FOLLOWERS[key]
            raise UserError(
                f"model.{key}={model[key]}, but the data has {key.removeprefix('in_')}={fact}: leave {follower} out, "
                f"it follows {owner}"
            )
    images = f"images of {channels} x {image_size} x {image_size}"
    try:
        layers, output = run_once(net, channels, image_size)
    except RuntimeError as error:
        raise UserError(f"model: the network cannot read {images}: {error}") from error
    if not isinstance(output, Tensor) or tuple(output.shape) != (1, num_classes):
        given = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise UserError(f"model: the network must give [1, {num_classes}] for one of the {images}; it gives {given}")
    return layers
