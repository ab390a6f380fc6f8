"""Runs that are recorded in the repository: what they are, and which of them differ in their seeds only.

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

from alexnet_lab.runs import folders, result_file
from alexnet_lab.runs.metric_rows import read_rows

NOT_MEASURED = "not measured here"
FIGURES = ("top1", "top5")
TEN_CROP = "ten_crop.json"
"""What `evaluate.py protocol=ten_crop out=RUN/ten_crop.json` says of a run."""
# What tells one run of a recipe from another without making it another recipe.
OF_ONE_RUN = (
    "run", "seed", "folder", "overrides", "resume", "logger", "sweep", "sweep_name", "checkpoints", "hang_timeout",
)  # fmt: skip
OF_ONE_RUNS_DATA = ("seed", "dir", "workers", "transparency", "unreadable")
"""Older runs do not state the last two; no published dataset has transparent or unreadable images."""
WATCHING = ("progress", "pictures")
"""Callbacks that leave the training as it is; others may change it."""
OF_THE_MACHINE = (
    *("trainer", "trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy"),
    *("trainer.accumulate_grad_batches", "trainer.log_every_n_steps", "trainer.profiler", "trainer.max_time"),
    *("data.eval_batch_size", "compile", "channels_last"),
)
"""Settings that change how fast a recipe runs, and not what it measures."""


@dataclass(frozen=True)
class Run:
    """A recorded run: its resolved configuration, its result, and its figures over ten views where they are known."""

    name: str
    config: dict[str, Any]
    result: dict[str, Any]
    ten_crop: dict[str, Any] | None = None
    rates: Sequence[tuple[int, float]] = ()
    """Where the learning rate changed, see `read_rates`."""

    def figure(self, metric: str) -> float | None:
        """`test/top1` of the run's own test, `ten_crop/top1` of ten views."""
        protocol, _, name = metric.partition("/")
        figures = self.result["final"] if protocol == "test" else self.ten_crop or {}
        return figures.get(f"test/{name}")


def read_runs(folder: Path) -> list[Run]:
    """The runs that are recorded below `folder`, by experiment and seed."""
    found = []
    for path in folder.glob(f"*/*/{folders.RESULT}"):
        result = result_file.read_result(path)
        assert result is not None
        of_run = path.parent
        config, ten_crop, rates = folders.read_config(of_run), read_ten_crop(of_run), read_rates(of_run)
        found.append(Run(of_run.name, config, result, ten_crop, rates))
    return sorted(found, key=lambda run: (run.config["recipe"]["name"], command(run), run.config["seed"]))


def read_ten_crop(folder: Path) -> dict[str, Any] | None:
    """The figures over ten views in a run's folder; None where they were not measured. UserError when damaged."""
    return result_file.read_result(folder / TEN_CROP)


def read_rates(folder: Path) -> list[tuple[int, float]]:
    """The first learning rate, and each other one with the epoch, from 1, in which it is logged first."""
    rates: list[tuple[int, float]] = []
    for row in read_rows(folder / folders.METRICS):
        if "lr" in row and (not rates or row["lr"] != rates[-1][1]):
            rates.append((int(row["epoch"]) + 1, row["lr"]))
    return rates


def groups_of(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """The runs that differ in their seeds only, by what they have in common."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(in_common(run.config), []).append(run)
    return groups


def in_common(config: Mapping[str, Any]) -> str:
    """What the configurations of runs have in common that differ in their seeds only."""
    kept = {key: value for key, value in config.items() if key not in OF_ONE_RUN}
    for group, without in (("data", OF_ONE_RUNS_DATA), ("callbacks", WATCHING)):
        kept[group] = {key: value for key, value in (kept.get(group) or {}).items() if key not in without}
    # The figures that a recipe is compared with are no part of what was run.
    kept["recipe"] = kept["recipe"]["name"]
    return json.dumps(_stated(kept), sort_keys=True)


def _stated(value: Any) -> Any:
    """`value` without what is null, which settings are that older runs did not have."""
    if isinstance(value, Mapping):
        return {key: _stated(item) for key, item in value.items() if item is not None}
    return value


def command(run: Run) -> str:
    """The command line of the recipe without the seed and what does not change the result."""
    words = [f"experiment={run.config['recipe']['name']}", *changes(run)]
    return " ".join(["python src/train.py", *map(shlex.quote, words)])


def changes(run: Run) -> list[str]:
    """The run's overrides that make its experiment another."""
    of_no_matter = {*OF_ONE_RUN, "experiment"}
    parts = {f"data.{key}" for key in OF_ONE_RUNS_DATA} | {f"callbacks.{key}" for key in WATCHING}

    def matters(text: str) -> bool:
        key = _key(text).split(".")
        return key[0] not in of_no_matter and ".".join(key[:2]) not in parts

    return [text for text in run.config["overrides"] if matters(text)]


def not_comparable(run: Run) -> list[str]:
    """The run's overrides after which its metrics do not compare with those that its experiment's source published."""
    return [text for text in changes(run) if _key(text) not in OF_THE_MACHINE]


def _key(override: str) -> str:
    return re.split(r"[=@]", override.lstrip("+~"))[0]


def mean(values: Sequence[float], digits: int = 4, sign: str = "-") -> str:
    """With the sample's standard deviation where there are several; `sign` as of format specifications."""
    text = f"{statistics.mean(values):{sign}.{digits}f}"
    return f"{text} +- {statistics.stdev(values):.{digits}f}" if len(values) > 1 else text


def published_text(figure: Mapping[str, Any] | None) -> str:
    """A published metric as it is shown, `0.803 +- 0.016`; empty for None."""
    if figure is None:
        return ""
    deviation = figure.get("deviation")
    return f"{figure['value']}" + (f" +- {deviation}" if deviation is not None else "")
