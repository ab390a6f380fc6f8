"""Prints the layer table of a network, in the form used by papers."""

from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from torch import nn

from alexnet_lab.config.agreement import agreeing_layers
from alexnet_lab.config.build import build, check
from alexnet_lab.models.table import render

WIDTH = 160


def describe(config: DictConfig) -> None:
    """Print the layers of `config.model` for images of `config.data`.

    Raises:
        UserError: a wrong key or value.
    """
    settings: dict[str, Any] = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    model, data = settings["model"], settings["data"]
    if "pretrained" in model:
        model["pretrained"] = False  # the layers are the same; nothing needs to be downloaded
    check(data, "data")
    with torch.device("meta"):
        net: nn.Module = build(model, "model", nn.Module)
    channels, side = data["channels"], data["image_size"]
    table = render(agreeing_layers(net, model, channels, side, data["num_classes"]))
    name = model["_target_"].rpartition(".")[2]
    table.title = f"{name} on {data['name']}: {channels} x {side} x {side} -> {data['num_classes']} classes"
    table.title_justify = "left"
    # Wide enough for the longest names: in the 80 columns of a pipe, rich would cut off the numbers.
    Console(width=WIDTH).print(table)
