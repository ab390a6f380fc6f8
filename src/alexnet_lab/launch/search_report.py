"""What a search shows and records at its end: all its trials, and the best one of its study."""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from alexnet_lab import files
from alexnet_lab.command_line import command, from_here, override

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

RESULTS = "optimization_results.yaml"
STATES = {
    "COMPLETE": ("finished", "green"),
    "PRUNED": ("pruned", "cyan"),
    "FAIL": ("failed", "red"),
    "RUNNING": ("interrupted", "magenta"),
}
"""By Optuna's state: ours and its color. A trial that still runs when the search ends was interrupted."""


def show(folder: Path, study: "optuna.Study", trials: "Sequence[FrozenTrial]", of: int) -> None:
    """Print the trials of the search in `folder`, which has `of` in all, and record the best one of the study."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    counts = Counter(STATES[one.state.name][0] for one in trials)
    title = ", ".join(f"{counts[name]} {name}" for name, _ in STATES.values() if counts[name])
    table = Table(title=f"search {folder.name}: {title} of {of} trials", title_justify="left")
    for name in ("trial", "state", "epochs", "val/top1", "overrides"):
        table.add_column(name, overflow="fold", no_wrap=name != "overrides")
    for one in trials:
        state, color = STATES[one.state.name]
        epochs = f"{one.last_step + 1}" if one.last_step is not None else ""
        value = f"{one.value:.4f}" if one.value is not None else ""
        table.add_row(str(one.number), f"[{color}]{state}[/]", epochs, value, Text(_values(one)))
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    lines = [f"compare with: {command('compare', override('runs', from_here(folder)))}"]
    if any(one.state.name == "COMPLETE" for one in study.get_trials(deepcopy=False)):
        best = study.best_trial
        found = {"name": "optuna", "best_trial": best.number, "best_params": best.params, "best_value": best.value}
        files.write(folder / RESULTS, OmegaConf.to_yaml(OmegaConf.create(found)))
        lines.insert(0, f"best: trial {best.number}, val/top1 {best.value:.4f}: {_values(best)}")
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _values(trial: "FrozenTrial") -> str:
    return " ".join(f"{key}={value}" for key, value in trial.params.items())
