"""Records finished runs in the repository and writes the results page from them; no figure is typed by hand.

Imports nothing heavy.
"""

import json
import re
import shlex
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from alexnet_lab.commands import folders
from alexnet_lab.errors import UserError
from alexnet_lab.tracking import record

RUNS = Path("docs/runs")
PAGE = Path("docs/results.md")
METRICS = ("test/top1", "test/top5")
# What tells one run of a recipe from another without making it another recipe.
OF_ONE_RUN = ("run", "seed", "folder", "overrides", "resume", "logger")
OF_ONE_RUNS_DATA = ("seed", "dir")
ABSOLUTE_PATH = re.compile(r"(?:^|(?<=[=\[,'\"]))/[^\s,\]'\"]+")

INTRODUCTION = """\
# Results

Measured by this code. `python src/results.py` writes this page from the recorded runs in `docs/runs`; nothing in it is
typed by hand. Accuracies are fractions of 1 on the whole test split: mean +- standard deviation over the seeds.
The published figures and their source are those that the experiment's file in `conf/experiment` states.
"""


@dataclass(frozen=True)
class Run:
    """A recorded run: its resolved configuration and its result."""

    name: str
    config: dict[str, Any]
    result: dict[str, Any]


def results(config: DictConfig) -> None:
    """Record the runs that `config.add` names, then write the page.

    Raises:
        UserError: one of them is no finished, tested run of an experiment, or its seed is recorded already.
    """
    added = [config.add] if isinstance(config.add, str) else list(config.add)
    for folder in added:
        print(f"recorded: {add(Path(str(folder)), RUNS)}")
    runs = read_runs(RUNS)
    PAGE.write_text(page(runs))
    print(f"{PAGE}: {len(runs)} runs")


def add(folder: Path, runs: Path) -> Path:
    """Copy a run's configuration and result below `runs`, as `<experiment>/<run>`, without paths of this machine.

    Raises:
        UserError: see `results`.
    """
    result = record.read_result(folder / folders.RESULT)
    if result is None:
        raise UserError(f"add={folder}: there is no run that has ended (no {folders.RESULT})")
    if result["status"] != "finished":
        raise UserError(f"add={folder}: the run is {result['status']}; only finished ones are recorded")
    run = _portable_run(folder, result)
    if not run.config.get("recipe"):
        raise UserError(f"add={folder}: the run is of no experiment; train it with experiment=NAME")
    if run.config["test_on"] == "none" or run.config["trainer"]["limit_test_batches"] is not None:
        raise UserError(f"add={folder}: the run was not tested on the whole test split")
    for other in read_runs(runs):
        if _recipe(other) == _recipe(run) and other.config["seed"] == run.config["seed"] and other.name != run.name:
            raise UserError(f"add={folder}: seed {run.config['seed']} is recorded already, as {other.name}")
    target = runs / run.config["recipe"]["name"] / run.name
    target.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(OmegaConf.create(run.config), target / folders.CONFIG)
    (target / folders.RESULT).write_text(json.dumps(run.result, indent=2) + "\n")
    return target


def read_runs(folder: Path) -> list[Run]:
    """The runs that are recorded below `folder`, by experiment and seed."""
    found = []
    for path in folder.glob(f"*/*/{folders.RESULT}"):
        result = record.read_result(path)
        assert result is not None
        found.append(Run(path.parent.name, folders.read_config(path.parent), result))
    return sorted(found, key=lambda run: (run.config["recipe"]["name"], command(run), run.config["seed"]))


def page(runs: Sequence[Run]) -> str:
    """The results page in Markdown: a table with a row per recipe, then what each was run on and with."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(_recipe(run), []).append(run)
    heading = "| experiment | network | data | seeds | top-1, published | top-1 | top-5, published | top-5 |"
    lines = [INTRODUCTION, heading, "|---|---|---|---|---|---|---|---|"]
    lines += [_row(group) for group in groups.values()]
    for group in groups.values():
        lines += ["", *_section(group)]
    return "\n".join(lines) + "\n"


def command(run: Run) -> str:
    """The command line of the recipe without the seed and what does not change the result."""
    return " ".join(["python src/train.py", *map(shlex.quote, _overrides(run))])


def _overrides(run: Run) -> list[str]:
    return [text for text in run.config["overrides"] if re.split(r"[.=@]", text.lstrip("+~"))[0] not in OF_ONE_RUN]


def _row(group: Sequence[Run]) -> str:
    config = group[0].config
    network = config["model"]["_target_"].rpartition(".")[2]
    changes = [text for text in _overrides(group[0]) if not text.startswith("experiment=")]
    cells = [" ".join([config["recipe"]["name"], *changes]), network, config["data"]["name"], str(len(group))]
    for metric in METRICS:
        cells.append(_published(config["recipe"]["published"].get(metric)))
        cells.append(_mean([run.result["final"][metric] for run in group]))
    return f"| {' | '.join(cells)} |"


def _section(group: Sequence[Run]) -> Iterable[str]:
    recipe, seconds = group[0].config["recipe"], [run.result["seconds"] for run in group]
    seeds = ",".join(str(run.config["seed"]) for run in group)
    line = command(group[0])
    sweep = line.replace("train.py", "train.py -m", 1) if len(group) > 1 else line
    yield f"## {recipe['name']}"
    yield ""
    yield f"    {sweep} seed={seeds}"
    yield ""
    yield f"- Source: {recipe['source']}"
    for metric, published in recipe["published"].items():
        yield f"- Published {metric}: {_published(published)}{_range(published)}"
    for metric in METRICS:
        values = ", ".join(f"{run.result['final'][metric]:.4f}" for run in group)
        yield f"- Measured {metric} by seed: {values}"
    yield f"- Time: {_mean(seconds, digits=0)} s per run"
    yield f"- Hardware: {_distinct(_hardware(run.result) for run in group)}"
    yield f"- Revision: {_distinct(_revision(run.result) for run in group)}"
    yield f"- Versions: {_distinct(_versions(run.result) for run in group)}"


def _published(figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return ""
    deviation = figure.get("deviation")
    return f"{figure['value']}" + (f" +- {deviation}" if deviation is not None else "")


def _range(figure: Mapping[str, Any]) -> str:
    return f", from {figure['range'][0]} to {figure['range'][1]}" if figure.get("range") else ""


def _mean(values: Sequence[float], digits: int = 4) -> str:
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} +- {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


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
    return git["commit"][:12] + (" with changes" if git["modified"] else "")


def _versions(result: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {result['versions'][name]}" for name in ("python", "torch", "lightning"))


def _recipe(run: Run) -> str:
    """What runs have in common that differ in their seeds only."""
    config = {key: value for key, value in run.config.items() if key not in OF_ONE_RUN}
    config["data"] = {key: value for key, value in config["data"].items() if key not in OF_ONE_RUNS_DATA}
    return json.dumps(config, sort_keys=True)


def _portable_run(folder: Path, result: Mapping[str, Any]) -> Run:
    config = {**folders.read_config(folder), "folder": None, "logger": {}}
    # The jobs of a sweep share the run's name, and are numbered.
    name = config["run"] if folder.name == config["run"] else f"{config['run']}-{folder.name}"
    return Run(name, _portable(config), _portable(result))


def _portable(value: Any) -> Any:
    """`value` with every absolute path in it replaced by the word PATH."""
    if isinstance(value, Mapping):
        return {key: _portable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_portable(item) for item in value]
    return ABSOLUTE_PATH.sub("PATH", value) if isinstance(value, str) else value
