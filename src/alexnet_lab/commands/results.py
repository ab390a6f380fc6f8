"""Records finished runs in the repository and writes the results page from them; no figure is typed by hand.

Imports nothing heavy.
"""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from alexnet_lab import files
from alexnet_lab.errors import UserError
from alexnet_lab.report.ensembles import add_ensemble, check_ensemble, read_ensembles
from alexnet_lab.report.results_page import page, read_recipes
from alexnet_lab.runs import folders, result_file
from alexnet_lab.runs.repository import TEN_CROP, Run, in_common, read_runs, read_ten_crop

RUNS = Path("docs/runs")
PAGE = Path("docs/results.md")
ABSOLUTE_PATH = re.compile(r"(?:^|(?<=[=\[,'\"]))/[^\s,\]'\"]+")


def results(config: DictConfig) -> None:
    """Record the runs, and the files of ensembles, that `config.add` names, then write the page.

    Raises:
        UserError: one of them is no finished, tested run of an experiment, or its seed is recorded already.
    """
    added = [config.add] if isinstance(config.add, str) else list(config.add or [])
    given = [Path(str(one)) for one in added]
    for one in given:  # all of them before any is recorded
        check_ensemble(one) if one.suffix == ".json" else check_run(one, RUNS)
    for one in given:
        record_it = add_ensemble if one.suffix == ".json" else add
        files.print_written(record_it(one, RUNS))
    runs, averaged = read_runs(RUNS), read_ensembles(RUNS)
    files.write(PAGE, page(runs, read_recipes(files.ROOT / "conf"), averaged))
    print(f"{len(runs)} runs, {len(averaged)} ensembles")
    files.print_written(PAGE)


def add(folder: Path, runs: Path) -> Path:
    """Copy a run's configuration, metrics and result below `runs`, as `<experiment>/<run>`, without paths of a machine.

    With them goes what `evaluate.py protocol=ten_crop out=FOLDER/ten_crop.json` has measured.

    Raises:
        UserError: see `results`.
    """
    run = check_run(folder, runs)
    target = runs / run.config["recipe"]["name"] / run.name
    target.mkdir(parents=True, exist_ok=True)
    files.write(target / folders.CONFIG, folders.as_yaml(run.config))
    files.write(target / folders.RESULT, json.dumps(run.result, indent=2) + "\n")
    shutil.copyfile(folder / folders.METRICS, target / folders.METRICS)
    # Those of a run that is recorded again are of other weights.
    (target / TEN_CROP).unlink(missing_ok=True)
    if run.ten_crop:
        files.write(target / TEN_CROP, json.dumps(run.ten_crop, indent=2) + "\n")
    return target


def check_run(folder: Path, runs: Path) -> Run:
    """The run in `folder` as it is to be recorded; raises UserError as `results`."""
    if not (folder / folders.CONFIG).exists():
        raise UserError(f"add={folder}: there is no run (no {folders.CONFIG})")
    result = result_file.read_end(folder / folders.RESULT)
    if result is None:
        raise UserError(f"add={folder}: the run has not ended yet (no {folders.RESULT})")
    if result["status"] != "finished":
        reason = f": {result['error']}" if result.get("error") else ""
        raise UserError(f"add={folder}: the run is {result['status']}{reason}; only finished ones are recorded")
    run = _portable_run(folder, result)
    if not run.config.get("recipe"):
        raise UserError(f"add={folder}: the run is of no experiment; train it with experiment=NAME")
    if run.config["test_on"] == "none" or run.config["trainer"]["limit_test_batches"] is not None:
        raise UserError(f"add={folder}: the run was not tested on the whole test split")
    for other in read_runs(runs):
        if (
            in_common(other.config) == in_common(run.config)
            and other.config["seed"] == run.config["seed"]
            and other.name != run.name
        ):
            raise UserError(f"add={folder}: seed {run.config['seed']} is recorded already, as {other.name}")
    return run


def _portable_run(folder: Path, result: Mapping[str, Any]) -> Run:
    config = {**folders.read_config(folder), "folder": None, "logger": {}}
    # The jobs of a sweep share the run's name, and are numbered.
    name = config["run"] if folder.name == config["run"] else f"{config['run']}-{folder.name}"
    ten_crop = read_ten_crop(folder)
    if ten_crop is not None:
        ten_crop = {**ten_crop, "checkpoint": Path(str(ten_crop.get("checkpoint"))).name}
        stated = {"protocol": "ten_crop", "split": "test", "checkpoint": f"{config['test_on']}.ckpt"}
        if images := (result.get("images") or {}).get("test"):  # older runs do not say
            stated["images"] = images
        if not stated.items() <= ten_crop.items():
            raise UserError(f"add={folder}: {TEN_CROP} must be of {', '.join(f'{k} {v}' for k, v in stated.items())}")
    return Run(name, _portable(config), _portable(result), ten_crop)


def _portable(value: Any) -> Any:
    """`value` with every absolute path in it replaced by the word PATH."""
    if isinstance(value, Mapping):
        return {key: _portable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_portable(item) for item in value]
    return ABSOLUTE_PATH.sub("PATH", value) if isinstance(value, str) else value
