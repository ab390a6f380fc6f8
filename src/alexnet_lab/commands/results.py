"""Records finished runs in the repository and writes the results page from them; no number is typed by hand.

Imports neither torch nor lightning.
"""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from alexnet_lab import files, places
from alexnet_lab.config.values import check_values
from alexnet_lab.errors import UserError
from alexnet_lab.report.ensembles import add_ensemble, check_ensemble, read_ensembles
from alexnet_lab.report.results_page import page, read_recipes
from alexnet_lab.runs import folders
from alexnet_lab.runs.groups import recipe_key
from alexnet_lab.runs.recipe import command
from alexnet_lab.runs.run import TEN_CROP, Run, read_run, read_runs

KINDS = {"add": str | list[str] | None}
"""The types of the options."""
ABSOLUTE_PATH = re.compile(r"(?:^|(?<=[=\[,'\"]))/[^\s,\]'\"]+")


def results(config: DictConfig) -> None:
    """Record the runs and the ensemble files that `config.add` names, then write the page.

    Raises:
        UserError: `add` has another type; or one of them is not a finished and tested run of an experiment, or its
            seed is already recorded.
    """
    recorded, page_file = places.docs() / "runs", places.docs() / "results.md"
    options: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    check_values(options, KINDS)
    added = options["add"] or []
    if places.CHECKOUT is None and not added and not recorded.exists():
        raise UserError(f"no runs are recorded in {recorded}; name finished ones: add=logs/train/runs/NAME")
    given = [Path(one) for one in ([added] if isinstance(added, str) else added)]
    for one in given:  # check all before recording any
        check_ensemble(one) if one.suffix == ".json" else check_run(one, recorded)
    for one in given:
        record_it = add_ensemble if one.suffix == ".json" else add
        files.print_written(record_it(one, recorded))
    runs, averaged = recorded_runs(recorded), read_ensembles(recorded)
    recorded.mkdir(parents=True, exist_ok=True)
    files.write(page_file, page(runs, read_recipes(places.CONF), averaged))
    print(f"{len(runs)} runs, {len(averaged)} ensembles")
    files.print_written(page_file)


def add(folder: Path, runs: Path) -> Path:
    """Copy a run's configuration, metrics and result to `runs/<experiment>/<run>`, without paths of this machine.

    The result of `evaluate protocol=ten_crop out=FOLDER/ten_crop.json` is copied as well.

    Raises:
        UserError: see `results`.
    """
    run = check_run(folder, runs)
    target = runs / run.config["recipe"]["name"] / run.name
    target.mkdir(parents=True, exist_ok=True)
    files.write(target / folders.CONFIG, folders.as_yaml(dict(run.config)))
    files.write(target / folders.RESULT, json.dumps(run.result, indent=2) + "\n")
    shutil.copyfile(folder / folders.METRICS, target / folders.METRICS)
    # If the run was recorded before, its ten-crop result belongs to other weights.
    (target / TEN_CROP).unlink(missing_ok=True)
    if run.ten_crop:
        files.write(target / TEN_CROP, json.dumps(run.ten_crop, indent=2) + "\n")
    return target


def recorded_runs(runs: Path) -> list[Run]:
    """The runs recorded below `runs`, by experiment and seed; raises UserError if one is damaged."""
    found = read_runs([str(runs)]) if any(runs.glob(f"*/*/{folders.RESULT}")) else []
    for run in found:
        run.check_readable()
    return sorted(found, key=lambda run: (run.config["recipe"]["name"], command(run.config), run.config["seed"]))


def check_run(folder: Path, runs: Path) -> Run:
    """The run in `folder` in the form to be recorded. Raises UserError, see `results`."""
    if not (folder / folders.CONFIG).exists():
        raise UserError(f"add={folder}: there is no run (no {folders.CONFIG})")
    run = read_run(folder)
    run.check_readable()
    if run.is_range_test:
        raise UserError(f"add={folder}: a learning-rate range test, not a training run")
    if run.status == "unfinished":
        raise UserError(f"add={folder}: the run has not ended yet (no {folders.RESULT})")
    if run.status != "finished":
        reason = f": {run.error}" if run.error else ""
        raise UserError(f"add={folder}: the run is {run.status}{reason}; only finished ones are recorded")
    if not run.config.get("recipe"):
        raise UserError(f"add={folder}: not a run of an experiment; train it with experiment=NAME")
    if run.config["test_on"] == "none" or run.config["trainer"]["limit_test_batches"] is not None:
        raise UserError(f"add={folder}: the run was not tested on the whole test split")
    run = _portable_run(run)
    for other in recorded_runs(runs):
        name = Path(other.source).name
        same = recipe_key(other.config) == recipe_key(run.config) and other.config["seed"] == run.config["seed"]
        if same and name != run.name:
            raise UserError(f"add={folder}: seed {run.config['seed']} is already recorded, as {name}")
    return run


def _portable_run(run: Run) -> Run:
    config = {**run.config, "folder": None, "logger": {}}
    # The jobs of a sweep share the name of the run.
    name = config["run"] if run.name == config["run"] else f"{config['run']}-{run.name}"
    ten_crop = run.ten_crop
    if ten_crop is not None:
        ten_crop = {**ten_crop, "checkpoint": Path(str(ten_crop.get("checkpoint"))).name}
        wanted: dict[str, Any] = {"protocol": "ten_crop", "split": "test", "checkpoint": f"{config['test_on']}.ckpt"}
        if images := run.images("test"):  # older runs do not record it
            wanted["images"] = images
        if not wanted.items() <= ten_crop.items():
            text = ", ".join(f"{key} {value}" for key, value in wanted.items())
            raise UserError(f"add={run.source}: {TEN_CROP} must have {text}")
    return replace(run, name=name, config=_portable(config), result=_portable(run.result), ten_crop=ten_crop)


def _portable(value: Any) -> Any:
    """`value` with every absolute path replaced by PATH."""
    if isinstance(value, Mapping):
        return {key: _portable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_portable(item) for item in value]
    return ABSOLUTE_PATH.sub("PATH", value) if isinstance(value, str) else value
