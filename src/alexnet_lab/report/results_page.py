"""The results page in Markdown: every experiment, measured or not, next to the published results.

Imports neither torch nor lightning.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from alexnet_lab.command_line import usual_command
from alexnet_lab.report.ablations import ablations
from alexnet_lab.report.activations import activations
from alexnet_lab.report.ensembles import ensembles
from alexnet_lab.runs.groups import recipe_groups
from alexnet_lab.runs.metric_rows import learning_rates
from alexnet_lab.runs.recipe import ACCURACIES, NOT_MEASURED, changes, command, mean, published_text
from alexnet_lab.runs.run import Run

PROTOCOLS = {"test": "centre", "ten_crop": "ten"}
"""The first part of a metric's name, and the page's name for the evaluated views."""
MOST_RATES = 6
"""A learning rate with more distinct values is not listed."""
INTRODUCTION = """\
# Results

Measured with this code. `COMMAND` writes this page from the runs recorded in `docs/runs`; no number is
typed by hand. Accuracies are fractions of 1 on the whole test split, for the centre crop or for ten views: mean +-
standard deviation over the seeds. The published results and their sources come from `conf/experiment`.
"""


def read_recipes(conf: Path) -> dict[str, dict[str, Any]]:
    """The `recipe` node of each experiment in `conf`, plus its `network` and `data`."""
    recipes = {}
    for path in sorted((conf / "experiment").glob("*.yaml")):
        content: Any = OmegaConf.to_container(OmegaConf.load(path))
        chosen = {"model": "alexnet_original", "data": "fashion_mnist"}  # defaults of conf/train.yaml
        for entry in content["defaults"]:
            chosen |= {group.removeprefix("override /"): name for group, name in entry.items()}
        recipes[path.stem] = {**content["recipe"], "network": chosen["model"], "data": chosen["data"]}
    return recipes


def page(
    runs: Sequence[Run], recipes: Mapping[str, Mapping[str, Any]], averaged: Sequence[Mapping[str, Any]] = ()
) -> str:
    """The page: a table of all recipes, the ensembles, the ablations, then a section per measured recipe.

    `recipes` come from `read_recipes`; a recipe without a run has a row that says so. `averaged` are the recorded
    ensembles.
    """
    groups = list(recipe_groups(runs).values())
    heading = "| experiment | network | data | views | seeds | top-1, published | top-1 | top-5, published | top-5 |"
    rows = [(group[0].config["recipe"]["name"], row) for group in groups for row in _rows(group)]
    measured = {name for name, _ in rows}
    rows += [(name, row) for name in recipes if name not in measured for row in _missing(recipes[name])]
    table = [row for _, row in sorted(rows, key=lambda entry: entry[0])]
    published = [ensemble for recipe in recipes.values() for ensemble in recipe.get("ensembles", [])]
    introduction = INTRODUCTION.replace("COMMAND", usual_command("results"))
    lines = [introduction, heading, "|---|---|---|---|---|---|---|---|---|", *table]
    lines += [*ensembles(averaged, published), *ablations(runs, recipes), *activations(runs)]
    for group in groups:
        lines += ["", *_section(group)]
    return "\n".join(lines) + "\n"


def _rows(group: Sequence[Run]) -> Iterable[str]:
    """A row for each kind of views that was measured or published."""
    config = group[0].config
    network = config["model"]["_target_"].rpartition(".")[2]
    name = " ".join([config["recipe"]["name"], *changes(group[0].config)])
    published = config["recipe"]["published"]
    for protocol, views in PROTOCOLS.items():
        metrics = [f"{protocol}/{figure}" for figure in ACCURACIES]
        measured = [run for run in group if run.metric(metrics[0]) is not None]
        if not measured and not published.keys() & set(metrics):
            continue
        cells = [name, network, config["data"]["name"], views, str(len(measured))]
        for metric in metrics:
            values = [value for run in measured if (value := run.metric(metric)) is not None]
            cells += [published_text(published.get(metric)), mean(values) if values else NOT_MEASURED]
        yield f"| {' | '.join(cells)} |"


def _missing(recipe: Mapping[str, Any]) -> Iterable[str]:
    published = recipe["published"]
    protocols = [name for name in PROTOCOLS if any(metric.startswith(f"{name}/") for metric in published)]
    for protocol in protocols or ["test"]:
        cells = [recipe["name"], recipe["network"], recipe["data"], PROTOCOLS[protocol], "0"]
        for figure in ACCURACIES:
            cells += [published_text(published.get(f"{protocol}/{figure}")), NOT_MEASURED]
        yield f"| {' | '.join(cells)} |"


def _section(group: Sequence[Run]) -> Iterable[str]:
    recipe, seconds = group[0].config["recipe"], [run.result["seconds"] for run in group]
    seeds = ",".join(str(run.config["seed"]) for run in group)
    sweep = command(group[0].config, *(["-m"] if len(group) > 1 else []))
    yield f"## {' '.join([recipe['name'], *changes(group[0].config)])}"
    yield ""
    yield f"    {sweep} seed={seeds}"
    yield ""
    yield f"- Source: {recipe['source']}"
    for metric, published in recipe["published"].items():
        yield f"- Published {metric}: {published_text(published)}{_range(published)}"
    for metric in (f"{protocol}/{figure}" for protocol in PROTOCOLS for figure in ACCURACIES):
        values = [value for run in group if (value := run.metric(metric)) is not None]
        if values:
            yield f"- Measured {metric} by seed: {', '.join(f'{value:.4f}' for value in values)}"
    yield from (line for run in group for line in _lost_by_ten_views(run))
    yield from (line for run in group for line in _rates(run))
    if counts := [f"{images:,}" for run in group if (images := run.images("test"))]:
        yield f"- Test images: {_distinct(counts)}"
    yield f"- Time: {mean(seconds, digits=0)} s per run"
    yield f"- Hardware: {_distinct(_hardware(run.result) for run in group)}"
    yield f"- Revision: {_distinct(_revision(run.result) for run in group)}"
    yield f"- Versions: {_distinct(_versions(run.result) for run in group)}"


def _rates(run: Run) -> Iterable[str]:
    """The values of a learning rate that changes in steps."""
    rates = learning_rates(run.rows)
    if 1 < len(rates) <= MOST_RATES:
        (_, first), *others = rates
        falls = [f"{rate:.3g} from epoch {epoch}" for epoch, rate in others]
        yield f"- Learning rate of seed {run.config['seed']}: {', '.join([f'{first:.3g}', *falls])}"


def _lost_by_ten_views(run: Run) -> Iterable[str]:
    """A line for each accuracy that is lower for ten views than for the centre crop, with its standard error."""
    for name in ACCURACIES:
        centre, ten = run.metric(f"test/{name}"), run.metric(f"ten_crop/{name}")
        images = run.images("test")
        if centre is not None and ten is not None and images and ten < centre:
            error = math.sqrt(ten * (1 - ten) / images)
            which = "within" if centre - ten < error else "beyond"
            fewer = f"ten views classify {round((centre - ten) * images)} of {images:,} images fewer correctly than"
            reason = f"the centre crop, {which} the standard error of {error:.4f}"
            yield f"- {name}, seed {run.config['seed']}: {fewer} {reason}"


def _range(figure: Mapping[str, Any]) -> str:
    return f", from {figure['range'][0]} to {figure['range'][1]}" if figure.get("range") else ""


def _distinct(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(texts))


def _hardware(result: Mapping[str, Any]) -> str:
    hardware = result["hardware"]
    on_cpu = hardware["accelerator"] == "cpu"
    return f"{result['world_size']} x {hardware['device']}" + (f", {hardware['cores']} cores" if on_cpu else "")


def _revision(result: Mapping[str, Any]) -> str:
    git = result["git"]
    if not git:
        return "unknown"
    if "version" in git:
        return f"version {git['version']}"
    return git["commit"][:12] + (" with changes" if git["modified"] else "")


def _versions(result: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {result['versions'][name]}" for name in ("python", "torch", "lightning"))
