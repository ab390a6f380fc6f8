"""Finds the folders of runs and reads them, of any age, half finished and failed ones."""

import csv
import glob
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from alexnet_lab.errors import UserError
from alexnet_lab.runs import result_file, wandb_offline
from alexnet_lab.runs.metric_rows import read_rows
from alexnet_lab.runs.run import Run, Status

CONFIG, RESULT, METRICS, PICTURES = "config.yaml", "result.json", "metrics.csv", "pictures"
# The C loader where PyYAML has it: ten times as fast.
Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_runs(places: Sequence[str]) -> list[Run]:
    """The runs in and below `places`: folders, or patterns like `logs/**/lenet-*`; each once, named by its path.

    Raises:
        UserError: there is no such place, or no run.
    """
    known = {folder.resolve(): folder for place in places for folder in _find(place)}
    # A pattern with ** matches what lies within a run too.
    found = sorted(folder for path, folder in known.items() if known.keys().isdisjoint(path.parents))
    if not found:
        raise UserError(f"runs={','.join(places)}: no run there; a run's folder has a {CONFIG} or a {RESULT}")
    runs: dict[Path, list[Path]] = {}
    for folder in found:
        runs.setdefault(wandb_offline.run_of(folder), []).append(folder)
    with ThreadPoolExecutor() as pool:  # a folder of W&B's takes seconds of another process
        return list(pool.map(_read, runs.values(), _names([folders[-1] for folders in runs.values()])))


def _find(place: str) -> list[Path]:
    matches = [Path(place)] if Path(place).exists() else [Path(match) for match in glob.glob(place, recursive=True)]
    if not matches:
        raise UserError(f"runs={place}: there is no such folder, and no folder matches it as a pattern")
    return [folder for match in matches if match.is_dir() for folder in _below(match)]


def _below(place: Path) -> Iterable[Path]:
    for parent, folders, files in os.walk(place):
        path = Path(parent)
        if path.name.startswith(wandb_offline.PREFIX) or CONFIG in files or RESULT in files:
            folders.clear()
            yield path
        # W&B keeps online runs too, with a config.yaml of its own; theirs are read from the server.
        hidden = (".", "run-") if path.name == "wandb" else (".",)
        folders[:] = sorted(name for name in folders if not name.startswith(hidden) and name != "checkpoints")


def _names(folders: Sequence[Path]) -> list[str]:
    """Paths below the folder that all have in common, without what all jobs of a sweep were told."""
    paths = [folder.resolve() for folder in folders]
    if len(paths) == 1:
        return [paths[0].name]
    common = os.path.commonpath([path.parent for path in paths])
    short = {
        path.parent: _telling([other.name for other in paths if other.parent == path.parent]) for path in set(paths)
    }
    return [os.path.relpath(path.parent / short[path.parent][path.name], common) for path in paths]


def _telling(names: Sequence[str]) -> dict[str, str]:
    """Each name, `model=lenet,seed=0`, without the parts that all have; as it is where little would be left."""
    parts = {name: name.split(",") for name in names}
    shared = set.intersection(*map(set, parts.values()))
    kept = {name: ",".join(part for part in parts[name] if part not in shared) for name in names}
    return kept if all(kept.values()) and len(set(kept.values())) == len(names) else {name: name for name in names}


def _read(folders: Sequence[Path], name: str) -> Run:
    folder = folders[-1]
    if folder.name.startswith(wandb_offline.PREFIX):
        return wandb_offline.read(folders, name)
    damage: list[str] = []
    config = _attempt(lambda: yaml.load((folder / CONFIG).read_text(), Loader), folder / CONFIG, damage)
    result = _attempt(lambda: json.loads((folder / RESULT).read_text()), folder / RESULT, damage)
    if not (folder / RESULT).exists() and not result_file.is_running(folder):
        result = result_file.NO_END
    try:
        rows = read_rows(folder / METRICS)
    except (OSError, ValueError, TypeError, csv.Error) as error:
        rows = []
        damage.append(f"{METRICS} is damaged: {error}")
    return Run(
        name=name,
        source=str(folder),
        status=_status(result.get("status")),
        config=config,
        facts=result,
        rows=rows,
        final=_mapping(result.get("final")),
        best=_mapping(result.get("best")),
        error="\n".join([*([str(result["error"])] if result.get("error") else []), *damage]) or None,
        pictures=sorted((folder / PICTURES).glob("*.png")),
    )


def _attempt(read: Any, path: Path, damage: list[str]) -> Mapping[str, Any]:
    """The mapping that `read` gives; an empty one, and a line in `damage`, where the file is no such thing."""
    if not path.exists():
        return {}
    try:
        content = read()
    except (OSError, ValueError, yaml.YAMLError) as error:
        damage.append(f"{path.name} is damaged: {str(error).splitlines()[0]}")
        return {}
    if not isinstance(content, Mapping):
        damage.append(f"{path.name} is damaged: it holds no settings")
        return {}
    return content


def _status(recorded: Any) -> Status:
    known: tuple[Status, ...] = ("finished", "failed", "interrupted")
    return next((status for status in known if status == recorded), "unfinished")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
