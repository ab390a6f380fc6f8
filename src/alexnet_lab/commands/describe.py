"""Prints the layer table of a network, in the form used by papers, and draws the network."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from torch import nn

from alexnet_lab import files
from alexnet_lab.config.agreement import agreeing_layers
from alexnet_lab.config.build import build, check
from alexnet_lab.config.output_file import check_output
from alexnet_lab.data.module import ImageDataModule
from alexnet_lab.errors import UserError
from alexnet_lab.models.table import LayerRow, render
from alexnet_lab.runs.found_settings import with_found

WIDTH = 160
KINDS = {"out": str | None}
"""The types of the options that are not settings of a run."""


def describe(config: DictConfig) -> None:
    """Print the layers of `config.model` for images of `config.data`, and draw them if `config.out` names a file.

    Raises:
        UserError: a wrong key or value, or the file cannot be written.
    """
    settings: dict[str, Any] = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    if settings["data"].get("num_classes", 0) is None:  # as many as the images have
        settings = with_found(settings, build(settings["data"], "data", ImageDataModule))
    model, data, out = settings["model"], settings["data"], settings["out"]
    check_output("out", out, (".svg",), makes_folder=True)
    if "pretrained" in model:
        model["pretrained"] = False  # the layers are the same; nothing needs to be downloaded
    check(data, "data")
    with torch.device("meta"):
        net: nn.Module = build(model, "model", nn.Module)
    channels, side = data["channels"], data["image_size"]
    layers = agreeing_layers(net, model, channels, side, data["num_classes"])
    table = render(layers)
    name = model["_target_"].rpartition(".")[2]
    table.title = f"{name} on {data['name']}: {channels} x {side} x {side} -> {data['num_classes']} classes"
    table.title_justify = "left"
    # Wide enough for the longest names: in the 80 columns of a pipe, rich would cut off the numbers.
    Console(width=WIDTH).print(table)
    if out is not None:
        _draw(Path(out), str(table.title), (channels, side, side), layers)


def _draw(path: Path, title: str, image: tuple[int, int, int], layers: Sequence[LayerRow]) -> None:
    """Write the drawing of a network for images [C, H, W] to `path`."""
    from alexnet_lab.pictures.architecture import Network, architecture

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, architecture([Network(title, image, layers)]))
    except OSError as error:
        raise UserError(f"out={path}: {error.strerror}") from error
    files.print_written(path)
