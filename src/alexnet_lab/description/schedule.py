"""`describe what=schedule`: the learning rate of a run before it begins, as table, chart and file of all steps."""

import math
import textwrap
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
RULE_WIDTH = 46
"""Characters in a line of the rule on the chart."""


def schedule(settings: dict[str, Any], outputs: Sequence[Path]) -> None:
    """Print the learning rate over the optimizer steps of a run of `settings`, and write it to `outputs`.

    *.csv has every step, as `metrics.csv` of a run that logs every step. Of a schedule that follows the validation
    error, which is not known, there are the start and the levels that may follow.

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
    most = "" if steps.rule is None else "at most "
    length = f"{most}{steps.total:,} in {epochs:,} epoch{'' if epochs == 1 else 's'}"
    lines = [f"{steps.images:,} training images in batches of {steps.batch_size:,}: {per_epoch}, {length}"]
    lines += [steps.images_note] if steps.images_note else []
    rates = np.array(steps.columns["lr"])
    low, high = (f"{rates[at]:.4g} (step {at + 1:,})" for at in (rates.argmin(), rates.argmax()))
    lines.append(f"lowest lr {low}, highest {high}" if rates.min() < rates.max() else f"lr is always {rates[0]:.4g}")
    if steps.rule is not None:
        start = "this schedule follows the validation error, which is not known before the run: the table has its start"
        levels = " and the levels that may follow" if len(rates) > 1 else ""
        lines[-1] = start + levels + (f"\nrule: {steps.rule}" if steps.rule else "")
    lines.append("epoch: counted from 1; out=FILE.csv counts from 0, as metrics.csv does")
    if "early_stopping" in (settings.get("callbacks") or {}):
        lines.append("early stopping may end the run before the last step")
    if settings["trainer"].get("max_time"):
        lines.append("trainer.max_time interrupts the run if it is not long enough for all steps; resume= continues it")
    return lines


def _changes(rates: Sequence[float]) -> list[int]:
    """The indices of the steps whose rate differs from that of the step before."""
    return (np.flatnonzero(np.diff(rates)) + 1).tolist()


def _shown(steps: Steps) -> list[int]:
    """The indices of the rows in the table."""
    if steps.rule is not None:
        return list(range(len(steps.columns["lr"])))
    rates, last = steps.columns["lr"], steps.total - 1
    some = _changes(rates)
    if len(some) > MOST_CHANGES:
        some = [*np.linspace(0, last, SAMPLES).round().astype(int).tolist(), int(np.argmax(rates))]
    return sorted({0, last, *some})


def _table(steps: Steps) -> Iterator[list[str]]:
    """The titles, then a row per shown step, or level."""
    yield ["step", "epoch", *steps.columns]
    shown = _shown(steps)
    columns = [aligned([values[at] for at in shown]) for values in steps.columns.values()]
    for at, *numbers in zip(shown, *columns, strict=True):
        if at and steps.rule is not None:
            yield [f"after plateau {at}", "", *numbers]
        else:
            yield [f"{at + 1:,}", f"{at // steps.per_epoch + 1:,}", *numbers]


def aligned(values: Sequence[float]) -> list[str]:
    """As many decimals for all as the smallest needs for three digits, or the largest for six.

    A number that is too small for them is written with a power of ten.
    """
    sizes = [math.floor(math.log10(abs(value))) for value in values if value] or [0]
    decimals = max(0, min(2 - min(sizes), 5 - max(sizes)))
    small = [0 < abs(value) < 10**-decimals for value in values]
    texts = [
        f"{value:.2e}" if is_small else f"{value:.{decimals}f}" for value, is_small in zip(values, small, strict=True)
    ]
    fixed = [text for text, is_small in zip(texts, small, strict=True) if not is_small]
    spare = min((len(text) - len(text.rstrip("0")) for text in fixed), default=0) if decimals else 0
    return [
        text if is_small else text[: len(text) - spare].removesuffix(".")
        for text, is_small in zip(texts, small, strict=True)
    ]


def _every_step(steps: Steps) -> Iterator[tuple[float | str, ...]]:
    for at, values in enumerate(zip(*steps.columns.values(), strict=True)):
        place = ("", "") if at and steps.rule is not None else (at + 1, at // steps.per_epoch)
        yield *place, *values


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
    if steps.rule is not None:
        return chart([_levels(steps)], title)
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


def _levels(steps: Steps) -> Panel:
    """The start as a point, the levels as dashed lines, since the steps at which they begin are not known."""
    rates = {name: values for name, values in steps.columns.items() if name != "momentum"}
    lines = [Line(name, [1], [values[0]], colour) for colour, (name, values) in enumerate(rates.items())]
    levels = {value: aligned([value])[0] for values in rates.values() for value in values}
    rule = f"only the start is known; then the validation error decides{': ' * bool(steps.rule)}{steps.rule}"
    return Panel(
        f"optimizer step ({steps.per_epoch:,} per epoch)",
        "learning rate",
        lines,
        "\n".join(textwrap.wrap(rule, RULE_WIDTH)),
        log_y=min(levels) > 0,
        levels=list(levels.items()),
        x_range=(1 - 0.02 * steps.total, steps.total),
        whole_x=True,
    )


def _points(steps: Steps) -> list[int]:
    """The indices on the chart: all, or a part with both sides of each jump and the highest rate."""
    rates = steps.columns["lr"]
    some = {*np.linspace(0, steps.total - 1, min(POINTS, steps.total)).astype(int).tolist(), int(np.argmax(rates))}
    changes = _changes(rates)
    if len(changes) <= MOST_CHANGES:
        some |= {at for change in changes for at in (change - 1, change)}
    return sorted(some)
