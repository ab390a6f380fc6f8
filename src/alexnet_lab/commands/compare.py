"""Compares runs: reads them, prints a table and writes the files that `out` names."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import NoneType
from typing import Any, get_args

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from alexnet_lab.config.output_file import check_output, write_output
from alexnet_lab.errors import UserError
from alexnet_lab.report import page, text
from alexnet_lab.report.pivot import Pivot, make_pivot
from alexnet_lab.report.table import Comparison, compare_runs
from alexnet_lab.runs.run import FIGURES, Run, read_runs


def _picture(comparison: Comparison) -> bytes:
    from alexnet_lab.report.picture import png  # here, since few comparisons draw one

    return png(comparison)


WRITERS: dict[str, Callable[[Comparison], str | bytes]] = {
    ".html": page.html,
    ".csv": text.as_csv,
    ".md": text.markdown,
    ".png": _picture,
}

KINDS: dict[str, Any] = {
    "runs": str | list | None,
    "wandb": str | None,
    "wandb_filters": dict | None,
    "workspace": str | None,
    "sort": str,
    "rows": str | list | None,
    "columns": str | list | None,
    "metric": str | None,
    "baseline": str | None,
    "confidence": float | int,
    "group_seeds": bool,
    "out": str | list | None,
}
"""The types of the options; checked without pydantic, which takes time to load."""
NAMES = {str: "text", NoneType: "null", bool: "true or false", float: "a number", int: "a number"}
NAMES |= {dict: "keys", list: "a list"}


def compare(config: DictConfig) -> None:
    """Compare the runs that `config.runs` and `config.wandb` name.

    Raises:
        UserError: a wrong value, no run, or a file cannot be written.
    """
    settings: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    _check(settings)
    outputs = settings["out"] if isinstance(settings["out"], list) else [settings["out"]]
    outputs = [Path(one) for one in outputs if _is_checked(one)]
    comparison = compare_runs(
        _read(settings), settings["sort"], settings["baseline"], settings["group_seeds"], settings["confidence"]
    )
    comparison = replace(comparison, pivot=_pivot(settings, comparison))
    text.print_table(comparison, Console())
    for path in outputs:
        write_output(path, WRITERS[path.suffix.lower()](comparison))
    if settings["workspace"] is not None:
        from alexnet_lab.report import wandb_workspace

        filtered = bool(settings["wandb_filters"])
        print(f"written: {wandb_workspace.save(settings['workspace'], settings['wandb'], comparison, filtered)}")


def _read(settings: dict[str, Any]) -> list[Run]:
    runs = read_runs(_list(settings["runs"])) if settings["runs"] else []
    if settings["wandb"]:
        from alexnet_lab.report.wandb_server import read_project

        runs += read_project(settings["wandb"], settings["wandb_filters"])
    return runs


def _pivot(settings: dict[str, Any], comparison: Comparison) -> Pivot | None:
    """The pivot that was asked for. Without `metric` it shows the one that sorts the runs, or top-1 of the test."""
    rows, columns = _list(settings["rows"]), _list(settings["columns"])
    if not rows and not columns:
        return None
    sort = settings["sort"].removeprefix("-")
    metric = settings["metric"] or (sort if sort in {figure.key for figure in FIGURES} else FIGURES[0].key)
    return make_pivot(comparison.groups, rows, columns, metric)


def _check(settings: dict[str, Any]) -> None:
    if not settings["runs"] and not settings["wandb"]:
        raise UserError("name runs: runs=FOLDER, such as runs=logs/train, or wandb=ENTITY/PROJECT")
    for key, kind in KINDS.items():
        if not isinstance(settings[key], kind):
            names = " or ".join(dict.fromkeys(NAMES[one] for one in get_args(kind) or (kind,)))
            raise UserError(f"{key}={settings[key]}: {key} takes {names}")
    pivoted = bool(settings["rows"] or settings["columns"])
    if pivoted and settings["baseline"] is not None:
        raise UserError("baseline=... has no differences in a table of rows= and columns=; leave one of them out")
    if settings["metric"] is not None and not pivoted:
        raise UserError("metric=... is shown in a table of settings; name them: rows=model columns=data")
    if settings["workspace"] is not None:
        from alexnet_lab.report import wandb_workspace

        wandb_workspace.check(settings["workspace"], settings["wandb"])


def _is_checked(out: Any) -> bool:
    """Whether `out` names a file (not null). Raises UserError if the file cannot be written."""
    check_output("out", out, [*WRITERS], makes_folder=True)
    if out is not None and Path(out).suffix.lower() == ".html":
        page.require_plotly()
    return out is not None


def _list(value: Any) -> list[str]:
    if value is None:
        return []
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]
