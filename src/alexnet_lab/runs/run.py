"""One reading of runs, for every command: finds their folders and reads them, of any age, also unfinished ones.

Imports nothing heavy.
"""

import csv
import glob
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from alexnet_lab.errors import UserError
from alexnet_lab.runs import folders, metric_rows, result_file

Status = Literal["finished", "failed", "interrupted", "pruned", "unfinished"]
"""`unfinished`: the run is still running, or the record of its end is damaged."""
Rows = Sequence[Mapping[str, float]]
TEN_CROP = "ten_crop.json"
"""The file of `evaluate.py protocol=ten_crop out=RUN/ten_crop.json`."""
OFFLINE = "offline-run-"
"""Beginning of the names of W&B's offline folders."""


@dataclass(frozen=True)
class Figure:
    """A number in the comparison: `key` names it in `sort=` and in CSV; `text` is a format specification."""

    key: str
    title: str
    text: str
    better: Literal["larger", "smaller"]


FIGURES = (
    Figure("test/top1", "test top-1", ".4f", "larger"),
    Figure("test/top5", "test top-5", ".4f", "larger"),
    Figure("best_val/top1", "best val top-1", ".4f", "larger"),
    Figure("val/top1", "final val top-1", ".4f", "larger"),
    Figure("best_val/top5", "best val top-5", ".4f", "larger"),
    Figure("val/top5", "final val top-5", ".4f", "larger"),
    Figure("epochs", "epochs", ".0f", "smaller"),
    Figure("seconds", "time (s)", ",.0f", "smaller"),
    Figure("images_per_second", "images/s", ",.0f", "larger"),
    Figure("parameters", "parameters", ",.0f", "smaller"),
    Figure("macs", "MACs", ",.0f", "smaller"),
)


@dataclass(frozen=True)
class Run:
    """A run's recorded configuration, result and metrics, read from its folder or from W&B.

    `source` is the folder or the address. `result` has the keys of `result.json`; where a killed process left none, it
    is `result_file.NO_END`, and empty while the run is running. `rows` are those of `metrics.csv`.
    """

    name: str
    source: str
    config: Mapping[str, Any]
    result: Mapping[str, Any] = field(default_factory=dict)
    rows: Rows = ()
    ten_crop: Mapping[str, Any] | None = None
    """The metrics over ten views; None where they were not measured."""
    damage: Sequence[str] = ()
    """A line for each file that cannot be read."""

    @property
    def status(self) -> Status:
        return next((status for status in get_args(Status) if status == self.result.get("status")), "unfinished")

    @property
    def is_range_test(self) -> bool:
        """Whether `tune=lr` made it."""
        return bool(self.config.get("tune"))

    @property
    def error(self) -> str | None:
        """Why the run failed, and which of its files are damaged."""
        recorded = self.result.get("error")
        return "\n".join([*([str(recorded)] if recorded else []), *self.damage]) or None

    @property
    def pictures(self) -> list[Path]:
        return sorted(Path(self.source, "pictures").glob("*.png"))

    @cached_property
    def figures(self) -> dict[str, float]:
        """The known values of `FIGURES` by key; accuracies are fractions of 1, NaN and infinities are left out."""
        found: dict[str, Any] = {
            "epochs": self.epochs,
            **{key: self.result.get(key) for key in ("seconds", "images_per_second", "parameters", "macs")},
            **{key: self._final.get(key) for key in ("test/top1", "test/top5", "val/top1", "val/top5")},
            **{f"best_{key}": self._best.get(key) for key in ("val/top1", "val/top5")},
        }
        return {key: float(value) for key, value in found.items() if _is_number(value)}

    def metric(self, name: str) -> float | None:
        """The final value of a metric; `ten_crop/top1` is that over ten views."""
        protocol, _, metric = name.partition("/")
        return (self.ten_crop or {}).get(f"test/{metric}") if protocol == "ten_crop" else self._final.get(name)

    @property
    def epochs(self) -> int | None:
        """Epochs that a training or validation metric is recorded of; without rows those that were asked for."""
        if not self._finite and self.status == "finished":
            asked: Any = _mapping(self.config.get("trainer")).get("max_epochs")
            return asked if _is_number(asked) else None
        return metric_rows.epochs(self._finite)

    @property
    def published(self) -> dict[str, Mapping[str, Any]]:
        """The metrics that the run's experiment gives as published: name -> `value`, perhaps `deviation`, `range`."""
        stated = _mapping(_mapping(self.config.get("recipe")).get("published"))
        return {
            str(metric): figure
            for metric, figure in stated.items()
            if isinstance(figure, Mapping) and _is_number(figure.get("value"))
        }

    def images(self, split: str) -> int | None:
        """How many images the metrics of `split` are over; None in older runs."""
        number: Any = _mapping(self.result.get("images")).get(split)
        return int(number) if _is_number(number) and number > 0 else None

    def check_readable(self) -> None:
        """Raise UserError if a file of the run is damaged."""
        if self.damage:
            raise UserError("\n".join(f"{self.source}/{line}" for line in self.damage))

    @cached_property
    def _finite(self) -> Rows:
        return [{name: value for name, value in row.items() if math.isfinite(value)} for row in self.rows]

    @cached_property
    def _final(self) -> Mapping[str, float]:
        return {**_mapping(self.result.get("final")), **metric_rows.final_metrics(self._finite)}

    @cached_property
    def _best(self) -> Mapping[str, float]:
        return {**_mapping(self.result.get("best")), **metric_rows.best_metrics(self._finite)}


def read_runs(places: Sequence[str]) -> list[Run]:
    """The runs in and below `places`: folders, or patterns like `logs/**/lenet-*`; each once, named by its path.

    A file that cannot be read is reported in the run's `damage`.

    Raises:
        UserError: there is no such place, or no run in it.
    """
    known = {folder.resolve(): folder for place in places for folder in _find(place)}
    # A pattern with ** also matches what is within a run.
    found = sorted(folder for path, folder in known.items() if known.keys().isdisjoint(path.parents))
    if not found:
        wanted = f"a {folders.CONFIG} or a {folders.RESULT}"
        raise UserError(f"runs={','.join(places)}: no run there; a run's folder has {wanted}")
    runs: dict[Path, list[Path]] = {}
    for folder in found:
        # W&B has one offline folder for each time that a run was continued; they share the end of their names.
        shared = folder.parent / folder.name.rpartition("-")[2] if folder.name.startswith(OFFLINE) else folder
        runs.setdefault(shared, []).append(folder)
    with ThreadPoolExecutor() as pool:  # a folder of W&B takes seconds of another process
        read = zip([parts[-1] for parts in runs.values()], [*pool.map(_read, runs.values())], strict=True)
    if not (trained := {folder: run for folder, run in read if not run.is_range_test}):
        raise UserError(f"runs={','.join(places)}: only learning-rate range tests there, no training runs")
    names = dict(zip(trained, _names([*trained]), strict=True))
    return [replace(run, name=names[at]) if run.name == at.name else run for at, run in trained.items()]


def read_run(folder: Path, name: str | None = None) -> Run:
    """The run in `folder`, named like it or `name`."""
    damage: list[str] = []

    def attempt(file: str, read: Callable[[Path], Any], missing: Any) -> Any:
        try:
            return read(folder / file)
        except UserError as error:
            damage.append(str(error).removeprefix(f"{folder}/"))
        except (OSError, ValueError, TypeError, csv.Error) as error:
            damage.append(f"{file} is damaged: {error}")
        return missing

    config = attempt(folders.CONFIG, lambda path: folders.read_config(folder) if path.exists() else {}, {})
    result = attempt(folders.RESULT, result_file.read_end, {}) or {}
    return Run(
        name=name or folder.name,
        source=str(folder),
        config=folders.with_precision(config, result),
        result=result,
        rows=attempt(folders.METRICS, metric_rows.read_rows, []),
        ten_crop=attempt(TEN_CROP, result_file.read_result, None),
        damage=damage,
    )


def _read(parts: Sequence[Path]) -> Run:
    if parts[-1].name.startswith(OFFLINE):
        from alexnet_lab.runs import wandb_records  # here, since few comparisons need it

        return wandb_records.read_offline(parts, parts[-1].name)
    return read_run(parts[-1])


def _find(place: str) -> list[Path]:
    matches = [Path(place)] if Path(place).exists() else [Path(match) for match in glob.glob(place, recursive=True)]
    if not matches:
        raise UserError(f"runs={place}: there is no such folder, and no folder matches it as a pattern")
    return [folder for match in matches if match.is_dir() for folder in _below(match)]


def _below(place: Path) -> Iterable[Path]:
    for parent, names, files in os.walk(place):
        path = Path(parent)
        if path.name.startswith(OFFLINE) or folders.CONFIG in files or folders.RESULT in files:
            names.clear()
            yield path
        # W&B also keeps online runs, with a config.yaml of its own; they are read from the server.
        hidden = (".", "run-") if path.name == "wandb" else (".",)
        names[:] = sorted(name for name in names if not name.startswith(hidden) and name != folders.CHECKPOINTS)


def _names(found: Sequence[Path]) -> list[str]:
    """Paths below the common folder, without the overrides that all jobs of a sweep share."""
    paths = [folder.resolve() for folder in found]
    if len(paths) == 1:
        return [paths[0].name]
    common = os.path.commonpath([path.parent for path in paths])
    short = {path.parent: _without_shared([one.name for one in paths if one.parent == path.parent]) for path in paths}
    return [os.path.relpath(path.parent / short[path.parent][path.name], common) for path in paths]


def _without_shared(names: Sequence[str]) -> dict[str, str]:
    """Each name, as `model=lenet,seed=0`, without the parts that all share; unchanged if two would become equal."""
    parts = {name: name.split(",") for name in names}
    shared = set.intersection(*map(set, parts.values()))
    kept = {name: ",".join(part for part in parts[name] if part not in shared) for name in names}
    return kept if all(kept.values()) and len(set(kept.values())) == len(names) else {name: name for name in names}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
