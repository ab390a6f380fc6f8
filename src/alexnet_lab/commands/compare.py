"""Compares runs: reads them, prints the table, writes what `out` names."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from alexnet_lab import files
from alexnet_lab.errors import UserError
from alexnet_lab.tracking.comparison import page, text
from alexnet_lab.tracking.comparison.run_folders import read_runs
from alexnet_lab.tracking.comparison.runs import Run
from alexnet_lab.tracking.comparison.table import Comparison, compare_runs

WRITERS: dict[str, Callable[[Comparison], str]] = {".html": page.html, ".csv": text.as_csv, ".md": text.markdown}


def compare(config: DictConfig) -> None:
    """Compare the runs that `config.runs` and `config.wandb` name.

    Raises:
        UserError: a wrong value, no run, or a file that cannot be written.
    """
    settings: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    _check(settings)
    outputs = [Path(name) for name in _list(settings["out"])]
    for path in outputs:
        _check_file(path)
    comparison = compare_runs(
        _read(settings), settings["sort"], settings["baseline"], settings["group_seeds"], settings["confidence"]
    )
    text.print_table(comparison, Console())
    for path in outputs:
        content = WRITERS[path.suffix](comparison)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write(path, content)
        except OSError as error:
            raise UserError(f"out={path}: {error.strerror}") from error
        files.print_written(path)


def _read(settings: dict[str, Any]) -> list[Run]:
    runs = read_runs(_list(settings["runs"])) if settings["runs"] else []
    if settings["wandb"]:
        from alexnet_lab.tracking.comparison.wandb_server import read_project

        runs += read_project(settings["wandb"], settings["wandb_filters"])
    return runs


def _check(settings: dict[str, Any]) -> None:
    if not settings["runs"] and not settings["wandb"]:
        raise UserError("which runs? runs=FOLDER, as runs=logs/train, or wandb=ENTITY/PROJECT")
    kinds: dict[str, tuple[type, ...]] = {
        "sort": (str,),
        "baseline": (str, type(None)),
        "wandb": (str, type(None)),
        "wandb_filters": (dict, type(None)),
        "group_seeds": (bool,),
        "confidence": (float, int),
    }
    for key, kind in kinds.items():
        if not isinstance(settings[key], kind):
            names = " or ".join("null" if one is type(None) else one.__name__ for one in kind)
            raise UserError(f"{key}={settings[key]}: it takes {names}")


def _check_file(path: Path) -> None:
    if path.suffix not in WRITERS:
        raise UserError(f"out={path}: a file's name ends in {', '.join(WRITERS)}")
    if path.is_dir():
        raise UserError(f"out={path}: that is a folder")
    if path.suffix == ".html":
        page.require_plotly()


def _list(value: Any) -> list[str]:
    if value is None:
        return []
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]
