"""A metric of the runs by two settings: `rows=model columns=data`. A cell is a mean over seeds."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alexnet_lab.config.advice import did_you_mean
from alexnet_lab.config.schema import default
from alexnet_lab.errors import UserError
from alexnet_lab.runs.groups import DATASET, SEED, TARGET, Group, Sample, differing, flat, setting_text, telling
from alexnet_lab.runs.run import FIGURES, Figure

Values = tuple[str, ...]
"""The values of the keys of one side; empty if the side has no keys."""


@dataclass(frozen=True)
class Cell:
    """The groups with a cell's values, the best by the metric first."""

    groups: Sequence[Group]
    sample: Sample
    """Of the best group."""


@dataclass(frozen=True)
class Pivot:
    """`keys`: the names of the rows' and of the columns' keys. `differs`: what differs between groups that share a
    cell. `left_out`: the number of runs that did not finish or do not have the metric."""

    figure: Figure
    keys: tuple[Values, Values]
    rows: Sequence[Values]
    columns: Sequence[Values]
    cells: Mapping[tuple[Values, Values], Cell]
    differs: Sequence[str]
    left_out: int


def make_pivot(groups: Sequence[Group], rows: Sequence[str], columns: Sequence[str], metric: str) -> Pivot:
    """Arrange the finished `groups` by the settings `rows` and `columns`; `metric` is a key of `FIGURES`.

    A key is a setting (`optimizer.lr`), its unique end (`lr`), or a group (`model`). A run that does not record a
    setting counts with its default.

    Raises:
        UserError: there is no such setting or metric.
    """
    figure = _figure(metric)
    known = [group for group in groups if group.status == "finished" and metric in group.samples]
    settings = {id(group): _all_settings(group) for group in groups}
    names = list(dict.fromkeys(name for one in settings.values() for name in one))
    sides = [[_full("rows", key, names) for key in rows], [_full("columns", key, names) for key in columns]]
    members: dict[tuple[Values, Values], list[Group]] = {}
    for group in known:
        row, column = (tuple(_value(settings[id(group)], name) for name in side) for side in sides)
        members.setdefault((row, column), []).append(group)
    larger = figure.better == "larger"
    for one in members.values():
        one.sort(key=lambda group: group.samples[metric].mean, reverse=larger)
    in_row, in_column = ({place[side] for place in members} for side in (0, 1))
    return Pivot(
        figure=figure,
        keys=(tuple(rows), tuple(columns)),
        rows=sorted(in_row, key=lambda values: [*map(number_or_text, values)]),
        columns=sorted(in_column, key=lambda values: [*map(number_or_text, values)]),
        cells={place: Cell(one, one[0].samples[metric]) for place, one in members.items()},
        differs=list(dict.fromkeys(key for sharing in members.values() for key in _differing(sharing))),
        left_out=sum(len(group.runs) for group in groups) - sum(len(group.runs) for group in known),
    )


def title(pivot: Pivot) -> str:
    """`test top-1 by model and data`."""
    return f"{pivot.figure.title} by {' and '.join(', '.join(keys) for keys in pivot.keys if keys)}"


def notes(pivot: Pivot) -> Iterator[str]:
    """Explanations of the pivot, one line each."""
    yield f"{pivot.figure.key}: mean ± standard deviation over n seeds" if _has_spread(pivot) else pivot.figure.key
    if pivot.differs:
        best = "highest" if pivot.figure.better == "larger" else "lowest"
        yield (
            f"best of k: k groups of runs share the cell and differ in {', '.join(pivot.differs)}; the cell is the one "
            f"with the {best} mean"
        )
    if pivot.left_out:
        yield f"runs left out, since they did not finish or have no {pivot.figure.key}: {pivot.left_out}"


def cell_text(pivot: Pivot, cell: Cell | None, joint: str = " ") -> str:
    """`0.8124 ± 0.0122 (n 3) best of 2`; `(n 1)` only beside others. `joint` comes before `best of`."""
    if cell is None:
        return ""
    text, spread = f"{cell.sample.mean:{pivot.figure.text}}", cell.sample.deviation
    if _has_spread(pivot):
        shown = "" if spread is None else f" ± {spread:{pivot.figure.text}}"
        text += f"{shown} (n {len(cell.sample.values)})"
    return text + (f"{joint}best of {len(cell.groups)}" if len(cell.groups) > 1 else "")


def table(pivot: Pivot, joint: str = " ") -> tuple[list[str], list[list[str]]]:
    """The titles and the lines of the table: the rows' values, then a cell for each of the columns' values."""
    titles = [*pivot.keys[0], *(label(pivot.keys[1], values) or pivot.figure.title for values in pivot.columns)]
    lines = [
        [*row, *(cell_text(pivot, pivot.cells.get((row, column)), joint) for column in pivot.columns)]
        for row in pivot.rows
    ]
    return titles, lines


def label(keys: Sequence[str], values: Values) -> str:
    """`model=lenet, lr=0.1`."""
    return ", ".join(f"{key}={value}" for key, value in zip(keys, values, strict=True))


def records(pivot: Pivot) -> Iterator[dict[str, Any]]:
    """A record for each cell with runs, with unrounded numbers."""
    for row in pivot.rows:
        for column in pivot.columns:
            if cell := pivot.cells.get((row, column)):
                values = dict(zip((*pivot.keys[0], *pivot.keys[1]), (*row, *column), strict=True))
                spread = "" if cell.sample.deviation is None else cell.sample.deviation
                key = pivot.figure.key
                numbers = {key: cell.sample.mean, f"{key} deviation": spread, "n": len(cell.sample.values)}
                shared = {"groups in the cell": len(cell.groups), "run": cell.groups[0].name}
                yield {**values, **numbers, **shared, "differing settings": " ".join(_differing(cell.groups))}


def _has_spread(pivot: Pivot) -> bool:
    return any(cell.sample.deviation is not None for cell in pivot.cells.values())


def _figure(metric: str) -> Figure:
    keys = [figure.key for figure in FIGURES]
    if metric not in keys:
        raise UserError(
            f"metric={metric}: there is no such metric{did_you_mean(metric, keys)}\nchoose from: {', '.join(keys)}"
        )
    return FIGURES[keys.index(metric)]


def _all_settings(group: Group) -> dict[str, str]:
    """Also those that do not change the result, such as `data.workers`."""
    return {**flat(group.runs[0].config), **group.settings}


def _full(option: str, key: str, names: Sequence[str]) -> str:
    """The full name of a setting."""
    of_group = DATASET if key == "data" else f"{key}.{TARGET}"
    if of_group in names:
        return of_group
    if key in names or default(key) is not None:
        return key
    ends = [name for name in names if name.endswith(f".{key}")]
    if len(ends) == 1:
        return ends[0]
    short = {name.removesuffix(f".{TARGET}"): name for name in names}
    reason = f"it is one of {', '.join(ends)}" if ends else f"there is no such setting{did_you_mean(key, short)}"
    raise UserError(f"{option}={key}: {reason}")


def _value(settings: Mapping[str, str], name: str) -> str:
    return settings[name] if name in settings else setting_text(default(name))


def number_or_text(text: str) -> tuple[bool, float, str]:
    """The key of an ascending order: numbers, then texts."""
    try:
        return False, float(text), ""
    except ValueError:
        return True, 0.0, text


def _differing(groups: Sequence[Group]) -> list[str]:
    """The settings in which the groups of a cell differ, without `._target_`; `seed` where only the seed does."""
    if len(groups) < 2:
        return []
    known = [group.settings for group in groups]
    names = [
        key
        for key in differing(known)
        if key != SEED and len({one.get(key, setting_text(default(key))) for one in known}) > 1
    ]
    several = set(telling(known))  # the others come with these
    return [key.removesuffix(f".{TARGET}") for key in names if key in several or several.isdisjoint(names)] or [SEED]
