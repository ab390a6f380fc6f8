"""The layer table of a network, in the form used by papers, and its drawing."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from alexnet_lab import files
from alexnet_lab.config.agreement import agreeing_layers
from alexnet_lab.config.build import build, check
from alexnet_lab.data.module import ImageDataModule
from alexnet_lab.errors import UserError
from alexnet_lab.models.table import LayerRow, render
from alexnet_lab.runs.found_settings import with_found

WIDTH = 160


def layers(settings: dict[str, Any], outputs: Sequence[Path]) -> None:
    """Print the layers of the model for images of the data, and draw them to each of `outputs`.

    Raises:
        UserError: a wrong key or value, or the file cannot be written.
    """
    if settings["data"].get("num_classes", 0) is None:  # as many as the images have
        settings = with_found(settings, build(settings["data"], "data", ImageDataModule))
    model, data = settings["model"], settings["data"]
    if "pretrained" in model:
        model["pretrained"] = False  # the layers are the same; nothing needs to be downloaded
    check(data, "data")
    with torch.device("meta"):
        net: nn.Module = build(model, "model", nn.Module)
    channels, side = data["channels"], data["image_size"]
    rows = agreeing_layers(net, model, channels, side, data["num_classes"])
    table = render(rows)
    name = model["_target_"].rpartition(".")[2]
    table.title = f"{name} on {data['name']}: {channels} x {side} x {side} -> {data['num_classes']} classes"
    table.title_justify = "left"
    # Wide enough for the longest names: in the 80 columns of a pipe, rich would cut off the numbers.
    Console(width=WIDTH).print(table)
    for path in outputs:
        _draw(path, str(table.title), (channels, side, side), rows)


def _draw(path: Path, title: str, image: tuple[int, int, int], layers: Sequence[LayerRow]) -> None:
    """Write the drawing of a network for images [C, H, W] to `path`."""
    from alexnet_lab.pictures.architecture import Network, architecture

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, architecture([Network(title, image, layers)]))
    except OSError as error:
        raise UserError(f"out={path}: {error.strerror}") from error
    files.print_written(path)
