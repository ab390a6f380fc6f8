"""`describe what=schedule`: the learning rate of a run before it begins, as table, chart and file of all steps."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from alexnet_lab import files
from alexnet_lab.config.schema import check_run_settings
from alexnet_lab.description.planned_steps import Steps, planned_steps
from alexnet_lab.pictures.chart import Line, Panel, chart
from alexnet_lab.rows import write_table

MOST_CHANGES = 12
"""A schedule with at most this many changes is shown with all of them, others by samples."""
SAMPLES = 11
POINTS = 2000
"""Largest number of points of a line on the chart."""
WIDTH = 160


def schedule(settings: dict[str, Any], outputs: Sequence[Path]) -> None:
    """Print the learning rate over the optimizer steps of a run of `settings`, and write it to `outputs`.

    *.csv has every step, as `metrics.csv` of a run that logs every step.

    Raises:
        UserError: something in the settings is wrong, or there are no images.
    """
    check_run_settings(settings)
    steps = planned_steps(settings)
    title = f"{_name(settings['scheduler'])} on {settings['data']['name']}"
    lines, table = _notes(settings, steps), list(_table(steps))
    print(f"{title}\n{lines[0]}")
    _print(table)
    print("\n".join(lines[1:]))
    for path in outputs:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() == ".csv":
            write_table(path, ("step", "epoch", *steps.columns), list(_every_step(steps)))
        elif path.suffix.lower() == ".md":
            files.write(path, _markdown(title, lines, table))
        else:
            with files.replacing(path) as unfinished:
                _chart(steps, title).save(unfinished, "PNG")
        files.print_written(path)


def _name(scheduler: dict[str, Any]) -> str:
    return str(scheduler["_target_"]).rpartition(".")[2]


def _notes(settings: dict[str, Any], steps: Steps) -> list[str]:
    """The length of the run; then lines about the rates."""
    epochs = -(-steps.total // steps.per_epoch)
    per_epoch = f"{steps.per_epoch:,} optimizer step{'' if steps.per_epoch == 1 else 's'} per epoch"
    length = f"{steps.total:,} in {epochs:,} epoch{'' if epochs == 1 else 's'}"
    lines = [f"{steps.images:,} training images in batches of {steps.batch_size:,}: {per_epoch}, {length}"]
    rates = np.array(steps.columns["lr"])
    low, high = (f"{rates[at]:.4g} (step {at + 1:,})" for at in (rates.argmin(), rates.argmax()))
    lines.append(f"lowest lr {low}, highest {high}" if rates.min() < rates.max() else f"lr is always {rates[0]:.4g}")
    if steps.rule is not None:
        start = "this schedule follows the validation error, which is not known before the run: the table has its start"
        lines[-1] = start + (f"\nrule: {steps.rule}" if steps.rule else "")
    lines.append("epoch: counted from 0, as in metrics.csv")
    if "early_stopping" in (settings.get("callbacks") or {}):
        lines.append("early stopping may end the run before the last step")
    if settings["trainer"].get("max_time"):
        lines.append("trainer.max_time interrupts the run if it is not long enough for all steps; resume= continues it")
    return lines


def _changes(rates: Sequence[float]) -> list[int]:
    """The indices of the steps whose rate differs from that of the step before."""
    return (np.flatnonzero(np.diff(rates)) + 1).tolist()


def _shown(steps: Steps) -> list[int]:
    """The indices of the steps in the table."""
    rates, last = steps.columns["lr"], steps.total - 1
    some = _changes(rates)
    if len(some) > MOST_CHANGES:
        some = [*np.linspace(0, last, SAMPLES).round().astype(int).tolist(), int(np.argmax(rates))]
    return sorted({0, last, *some})


def _table(steps: Steps) -> Iterator[list[str]]:
    """The titles, then a row per shown step."""
    yield ["step", "epoch", *steps.columns]
    for at in _shown(steps):
        numbers = (f"{values[at]:.6g}" for values in steps.columns.values())
        yield [f"{at + 1:,}", f"{at // steps.per_epoch:,}", *numbers]


def _every_step(steps: Steps) -> Iterator[tuple[float, ...]]:
    for at, values in enumerate(zip(*steps.columns.values(), strict=True)):
        yield at + 1, at // steps.per_epoch, *values


def _print(rows: Sequence[Sequence[str]]) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in rows[0]:
        table.add_column(title, justify="right")
    for row in rows[1:]:
        table.add_row(*row)
    Console(width=WIDTH).print(table)


def _markdown(title: str, lines: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head, *body = [f"| {' | '.join(row)} |" for row in rows]
    notes = [line for note in lines[1:] for line in note.split("\n")]
    top = [f"# {title}", "", lines[0], "", head, f"|{'---:|' * len(rows[0])}"]
    return "\n".join([*top, *body, "", *(f"- {note}" for note in notes), ""])


def _chart(steps: Steps, title: str) -> Any:
    rates = [name for name in steps.columns if name != "momentum"]
    shown = _points(steps)
    lowest = min(min(steps.columns[name]) for name in rates)
    highest = max(max(steps.columns[name]) for name in rates)
    in_steps = len(_changes(steps.columns["lr"])) <= MOST_CHANGES
    panels = []
    for names, y in ((rates, "learning rate"), ([name for name in steps.columns if name not in rates], "momentum")):
        lines = [
            Line(name, [at + 1 for at in shown], [steps.columns[name][at] for at in shown], colour, marked=False)
            for colour, name in enumerate(names)
        ]
        log = y == "learning rate" and in_steps and 0 < 10 * lowest <= highest
        if lines:
            panels.append(Panel(f"optimizer step ({steps.per_epoch:,} per epoch)", y, lines, log_y=log, whole_x=True))
    return chart(panels, title)


def _points(steps: Steps) -> list[int]:
    """The indices on the chart: all, or a part with both sides of each jump and the highest rate."""
    rates = steps.columns["lr"]
    some = {*np.linspace(0, steps.total - 1, min(POINTS, steps.total)).astype(int).tolist(), int(np.argmax(rates))}
    changes = _changes(rates)
    if len(changes) <= MOST_CHANGES:
        some |= {at for change in changes for at in (change - 1, change)}
    return sorted(some)
