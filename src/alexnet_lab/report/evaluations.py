"""The metrics of an evaluation, as tables on the terminal and as facts for JSON."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from alexnet_lab.evaluation import Evaluation, Measured
from alexnet_lab.runs.checkpoint import Checkpoint
from alexnet_lab.runs.recipe import not_comparable, published_text


def about(members: Sequence[Measured], options: Mapping[str, Any]) -> dict[str, Any]:
    """What was measured and how; with several networks, also the metrics of each."""
    facts = {"checkpoint": members[0].reference, "split": options["split"], "protocol": options["protocol"]}
    facts["images"] = members[0].images
    if len(members) == 1:
        return facts
    read = [(member.checkpoint, member.figures) for member in members]
    networks = [{"run": one.settings["run"], "network": _network(one), **figures} for one, figures in read]
    known = {"data": read[0][0].settings["data"]["name"], "networks": networks, "whole_split": is_whole(options)}
    return facts | {"checkpoint": [member.reference for member in members], **known}


def is_whole(options: Mapping[str, Any]) -> bool:
    """Whether all images of the split were evaluated."""
    return options["trainer"].get(f"limit_{options['split']}_batches") is None


def show(measured: Evaluation, options: Mapping[str, Any], result: Mapping[str, float]) -> None:
    """Print the metrics `result` and those of each network."""
    members, console = measured.members, Console()
    first = members[0]
    title = f"{'weights' if first.checkpoint.derived_data else 'checkpoint'} of {first.checkpoint.origin}"
    if len(members) > 1:
        title = f"average of {len(members)} networks"
        console.print(_single_networks(members))
    table = Table(title=Text(title), show_header=False, title_justify="left")
    for label, text in _rows(first, len(members), options, result):
        table.add_row(label, Text(text, overflow="fold"))  # a long path is wrapped, not cut
    console.print(table)
    for member in members:
        console.print(f"checkpoint: {member.reference}", markup=False, highlight=False, soft_wrap=True)


def _single_networks(members: Sequence[Measured]) -> Table:
    table = Table("run", "network", "top1", "top5", "loss", title="single networks", title_justify="left")
    for member in members:
        figures = [f"{member.figures[name]:.4f}" for name in ("top1", "top5", "loss")]
        table.add_row(Text(member.checkpoint.settings["run"]), _network(member.checkpoint), *figures)
    return table


def _rows(
    first: Measured, networks: int, options: Mapping[str, Any], result: Mapping[str, float]
) -> Iterable[tuple[str, str]]:
    if networks == 1:
        yield "network", _network(first.checkpoint)
        if first.checkpoint.step:
            yield "trained for", f"{first.checkpoint.step:,} steps"
    images = _images(first.checkpoint, options["data"]["dir"])
    yield "data", f"{images}, {options['split']} split, {first.images:,} images"
    yield "protocol", options["protocol"]
    for name in ("top1", "top5", "loss"):
        metric = f"{options['split']}/{name}"
        published = _published(first.checkpoint.settings, options, name) if networks == 1 else ""
        yield metric, f"{result[metric]:.4f}{published}"


def _images(checkpoint: Checkpoint, folder: str | None) -> str:
    """The name of the run's dataset, the `folder` that was given, or both."""
    name = str(checkpoint.settings["data"].get("name", "the run's dataset"))
    if folder is None:
        return name
    return folder if checkpoint.derived_data else f"{name} in {folder}"


def _published(settings: dict[str, Any], options: Mapping[str, Any], name: str) -> str:
    """The published value of this metric for the same views of the test images; empty if there is none."""
    metric = {"center": f"test/{name}", "ten_crop": f"ten_crop/{name}"}[options["protocol"]]
    figure = ((settings.get("recipe") or {}).get("published") or {}).get(metric)
    if figure is None or options["split"] != "test":
        return ""
    different = " ".join(not_comparable(settings))
    return f"  published: {published_text(figure)}" + (f", not comparable with {different}" if different else "")


def _network(checkpoint: Checkpoint) -> str:
    return str(checkpoint.settings["model"]["_target_"]).rpartition(".")[2]
