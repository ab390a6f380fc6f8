"""Which weights a new run starts with, by the setting `init`. `initial_weights` reads them; few runs import it."""

from collections.abc import Mapping
from typing import Any

from alexnet_lab.errors import UserError

TORCHVISION = "alexnet_lab.models.alexnet_torchvision.alexnet_torchvision"


def without_weights(model: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a network that does not load weights itself; see `weights_named` for `model.pretrained`."""
    return {**model, "pretrained": False} if model["_target_"] == TORCHVISION else {**model}


def weights_named(settings: Mapping[str, Any]) -> tuple[str, str | None]:
    """The option that names weights, and what it names, or None; `model.pretrained` is an older name of `init`.

    Raises:
        UserError: both are given.
    """
    model, reference = settings["model"], settings.get("init")
    if model["_target_"] != TORCHVISION or not (pretrained := model.get("pretrained")):
        return "init", reference
    if reference:
        raise UserError("init and model.pretrained both name weights to start with: omit model.pretrained")
    return "model.pretrained", "torchvision" if pretrained is True else str(pretrained)
