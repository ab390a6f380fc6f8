"""A comparison as a workspace of its W&B project: a saved view with the panels of the page, which W&B keeps up to date.

The runs are grouped by the settings that differ, as on the page; W&B computes means and deviations over the seeds.
"""

import contextlib
import io
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from alexnet_lab.command_line import install
from alexnet_lab.errors import UserError
from alexnet_lab.report.curves import Curves, metrics, points
from alexnet_lab.report.table import Comparison
from alexnet_lab.report.wandb_server import reason, refusals
from alexnet_lab.runs.groups import DATASET, SEED, Group, differing, telling
from alexnet_lab.runs.wandb_records import STEP

if TYPE_CHECKING:
    import wandb_workspaces.workspaces as ws

SUMMARIES = {"test/top1": "test/top1.max", "best_val/top1": "val/top1.max"}
"""Accuracies by their names in the comparison -> in W&B's summary, which keeps the best value of each metric."""
COSTS = ("seconds", "parameters", "macs")
PICTURES = ("predictions", "confusion", "filters", "neighbours", "batch", "curves")
MOST_RUNS = 100
"""Curves in a panel."""


def check(name: str, project: str | None) -> None:
    """Raise UserError if the workspace `name` cannot be saved: no project, or the package is not installed."""
    if not project:
        raise UserError(f"workspace={name} is saved in a W&B project; name it: wandb=ENTITY/PROJECT")
    if not name.strip():
        raise UserError("workspace takes a name, such as workspace=comparison")
    if find_spec("wandb_workspaces") is None:
        raise UserError(f"workspace={name} needs the package wandb-workspaces: {install('workspace')}")


def save(name: str, project: str, comparison: Comparison, filtered: bool) -> str:
    """Save a workspace `name` in `project` (ENTITY/PROJECT, or PROJECT of the default entity); returns its address.

    `filtered`: show only the runs that are compared, not all of the project. A workspace of the same name stays.

    Raises:
        UserError: not logged in, no answer, no permission, or a name that W&B does not take.
    """
    import wandb
    from pydantic import ValidationError

    from alexnet_lab.loggers.wandb_service import service

    try:
        with service(), contextlib.redirect_stderr(io.StringIO()):  # the library prints the address itself
            entity, _, project_name = project.rpartition("/")
            entity = entity or wandb.Api().default_entity or ""
            view = _workspace(name, entity, project_name, comparison, filtered)
            return str(view.save().url)
    except ValidationError as error:
        refusal = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise UserError(f"workspace={name}: W&B does not take this name ({refusal})") from error
    except refusals() as error:
        raise UserError(f"workspace={name}: {reason(error)}") from error


def _workspace(name: str, entity: str, project: str, comparison: Comparison, filtered: bool) -> "ws.Workspace":
    import wandb_workspaces.workspaces as ws
    from wandb_workspaces.expr import And

    keys = group_keys(comparison.groups)
    best = [key for known, key in SUMMARIES.items() if any(known in group.samples for group in comparison.groups)]
    runs = [run.source.rpartition("/")[2] for run in comparison.runs if "://" in run.source]
    columns = [f"summary:{key}" for key in best] + [f"config:{_in_column(key)}" for key in keys]
    first = ws.Summary(best[0]) if best else ws.Metric("CreatedTimestamp")
    runset = ws.RunsetSettings(
        groupby=[ws.Config(key) for key in keys if _has_seeds(comparison.groups)],
        filters=And(ws.Metric("ID").isin(runs)) if filtered else "",
        pinned_columns=columns,
        order=[ws.Ordering(first, ascending=False)],
    )
    sections = [
        ws.Section(name=title, panels=panels, is_open=True)
        for title, panels in _panels(comparison, best).items()
        if panels
    ]
    shown = ws.WorkspaceSettings(max_runs=MOST_RUNS)
    return ws.Workspace(
        entity=entity, project=project, name=name, sections=sections, settings=shown, runset_settings=runset
    )


def _panels(comparison: Comparison, best: Sequence[str]) -> Mapping[str, list[Any]]:
    """The panels by the title of their section, in the order of the page."""
    import wandb_workspaces.reports.v2 as wr

    axes = {"step": STEP, "epoch": "epoch"}
    curves = metrics(
        [Curves(group.name, [(run.name, points(run)) for run in group.runs]) for group in comparison.groups]
    )
    costs = [key for key in COSTS if any(key in group.samples for group in comparison.groups)]
    bars = [wr.BarPlot(title=key, metrics=[wr.SummaryMetric(key)], groupby_rangefunc="stddev") for key in best]
    lines = [wr.LinePlot(title=one.name, x=axes[one.over], y=[one.name]) for one in curves]
    clouds = [wr.ScatterPlot(x=wr.SummaryMetric(key), y=wr.SummaryMetric(best[0])) for key in costs if best]
    pictures = [wr.MediaBrowser(title=one, media_keys=[f"pictures/{one}"]) for one in PICTURES]
    return {
        "Results": bars,
        "Learning curves": lines,
        "Accuracy and cost": clouds,
        "Settings that differ": [wr.RunComparer(diff_only="split")],
        "Pictures": pictures,
    }


def group_keys(groups: Sequence[Group]) -> list[str]:
    """The fields of W&B's configuration that tell the groups apart: as few as the table shows, if they suffice."""
    known = [group.settings for group in groups]
    distinct = {tuple(sorted((key, text) for key, text in one.items() if key != SEED)) for one in known}
    keys = [key for key in telling(known) if key != SEED]
    if len({tuple(one.get(key, "") for key in keys) for one in known}) < len(distinct):
        keys = [key for key in differing(known) if key != SEED]
    named = any("name" in (run.config.get("data") or {}) for group in groups for run in group.runs)
    renamed = {DATASET: "data.name"} if named else {}
    return [renamed.get(key, key) for key in keys] or ["model._target_"]


def _has_seeds(groups: Sequence[Group]) -> bool:
    """Whether a group has several runs; with none, each run is a row and a curve, as on the page."""
    return any(len(group.runs) > 1 for group in groups)


def _in_column(key: str) -> str:
    """W&B's name of a nested field of the configuration in a column: `optimizer.value.lr`."""
    first, _, rest = key.partition(".")
    return f"{first}.value.{rest}" if rest else f"{first}.value"
