"""The layer tables of networks, in the form used by papers, side by side if several, and their drawing."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from alexnet_lab.config.agreement import agreeing_layers
from alexnet_lab.config.build import build
from alexnet_lab.config.output_file import write_output
from alexnet_lab.data.module import ImageDataModule
from alexnet_lab.description import network, side_by_side
from alexnet_lab.description.network import Described
from alexnet_lab.errors import UserError
from alexnet_lab.models.table import Remark, count_parameters
from alexnet_lab.report import text
from alexnet_lab.runs.found_settings import with_found


def layers(settings: dict[str, Any], outputs: Sequence[Path], others: Sequence[dict[str, Any]] = ()) -> None:
    """Print the layers of the model for images of the data, those of the `others` beside them; write the `outputs`.

    Raises:
        UserError: a wrong key or value, or a file cannot be written.
    """
    every = [_complete(one) for one in (settings, *others)]
    names = side_by_side.names([one["model"] for one in every])
    networks = [_network(one, name) for one, name in zip(every, names, strict=True)]
    remark = _remark(every[0]["model"]) if len(every) == 1 else None
    beside = _beside(every[0], remark) if remark else networks
    _print(networks, remark, beside)
    for path in outputs:
        _write(path, networks, remark, beside)


def _complete(settings: dict[str, Any]) -> dict[str, Any]:
    data: ImageDataModule = build(settings["data"], "data", ImageDataModule)  # checks it; no image is read
    if settings["data"].get("num_classes", 0) is None:  # as many as the images have
        settings = with_found(settings, data)
    if "pretrained" in settings["model"]:
        settings["model"]["pretrained"] = False  # the layers are the same; nothing needs to be downloaded
    return settings


def _network(settings: Mapping[str, Any], name: str) -> Described:
    model, data = settings["model"], settings["data"]
    with torch.device("meta"):
        net: nn.Module = build(model, "model", nn.Module)
    channels, side, classes = data["channels"], data["image_size"], data["num_classes"]
    layers = agreeing_layers(net, model, channels, side, classes)
    function = model["_target_"].rpartition(".")[2]
    own = f" {name.removeprefix(function).strip()}".rstrip()
    title = f"{function}{own} on {data['name']}: {channels} x {side} x {side} -> {classes}"
    return Described(name, f"{title} classes", (channels, side, side), classes, layers, count_parameters(net))


def _remark(model: Mapping[str, Any]) -> Remark | None:
    """That of the module of the network's function."""
    found = getattr(import_module(model["_target_"].rpartition(".")[0]), "REMARK", None)
    return found if isinstance(found, Remark) and found.key in model else None


def _beside(settings: dict[str, Any], remark: Remark) -> list[Described]:
    """The network with each value of the remark; empty if one of them cannot process the images."""
    models = [{**settings["model"], remark.key: value} for value in remark.values]
    names = side_by_side.names(models)
    try:
        return [_network({**settings, "model": one}, name) for one, name in zip(models, names, strict=True)]
    except UserError:
        return []


def _print(networks: Sequence[Described], remark: Remark | None, beside: Sequence[Described]) -> None:
    console = Console()
    lines = [] if len(networks) > 1 else network.memory_lines(networks[0])
    if len(networks) == 1:
        print(networks[0].title)
        text.print_parts(network.TITLES, list(network.cells(networks[0])), console)
    lines += ["", remark.text] if remark else []
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if len(beside) > 1:
        side_by_side.show(beside, console)


def _markdown(networks: Sequence[Described], remark: Remark | None, beside: Sequence[Described]) -> str:
    lines = network.markdown(networks[0]) if len(networks) == 1 else []
    lines += [remark.text, ""] if remark else []
    lines += side_by_side.markdown(beside) if len(beside) > 1 else []
    return "\n".join(lines).rstrip() + "\n"


def _drawing(networks: Sequence[Described]) -> str:
    from alexnet_lab.pictures.architecture import Network, architecture

    return architecture([Network(one.title, one.image, one.rows, one.parameters) for one in networks])


WRITERS: dict[str, Callable[[Sequence[Described], Remark | None, Sequence[Described]], str]] = {
    ".md": _markdown,
    ".csv": lambda networks, remark, beside: network.as_csv(networks),
    ".json": lambda networks, remark, beside: network.as_json(networks, side_by_side.ratios(networks)),
    ".svg": lambda networks, remark, beside: _drawing(networks),
}


def _write(path: Path, networks: Sequence[Described], remark: Remark | None, beside: Sequence[Described]) -> None:
    write_output(path, WRITERS[path.suffix.lower()](networks, remark, beside))
