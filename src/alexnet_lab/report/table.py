"""The comparison as a table: a row per group; columns for metrics, differing settings, differences to a baseline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet_lab.config.advice import did_you_mean
from alexnet_lab.errors import UserError
from alexnet_lab.report.intervals import Difference, difference
from alexnet_lab.report.pivot import Pivot, number_or_text
from alexnet_lab.runs import folders
from alexnet_lab.runs.groups import DATASET, SEED, Group, group_runs, short_names, telling
from alexnet_lab.runs.run import FIGURES, Figure, Run

TESTED, VALIDATED = ("test/top1", "test/top5"), ("val/top1", "val/top5")


@dataclass(frozen=True)
class Comparison:
    """The groups in the table's order, and its columns.

    `settings`: those that differ, dotted key -> column name. `published`: by group, metric -> published value.
    `differences`: by group, metric -> difference to the baseline; empty without a baseline. `pivot`: None unless asked
    for. `sort`: the column by which the groups are sorted.
    """

    groups: Sequence[Group]
    settings: Mapping[str, str]
    figures: Sequence[Figure]
    published: Mapping[str, Mapping[str, Mapping[str, Any]]]
    baseline: Group | None
    differences: Mapping[str, Mapping[str, Difference]]
    confidence: float
    sort: str
    pivot: Pivot | None = None

    @property
    def runs(self) -> list[Run]:
        return [run for group in self.groups for run in group.runs]

    @property
    def compared(self) -> list[str]:
        """The metrics that have differences."""
        return list(dict.fromkeys(key for found in self.differences.values() for key in found))

    @property
    def stated(self) -> list[str]:
        """The metrics that have a published value."""
        return list(dict.fromkeys(metric for figures in self.published.values() for metric in figures))


def compare_runs(
    runs: Sequence[Run], sort: str = "test/top1", baseline: str | None = None, seeds: bool = True, level: float = 0.95
) -> Comparison:
    """Group, sort and compare `runs`.

    `sort`: a metric, best first, or a setting or `name`, ascending; a leading minus reverses the order. `baseline`: the
    name of a group, or the name or folder of a run in it. `seeds`: group runs that differ only in the seed. `level`:
    confidence level of the intervals, in (0, 1).

    Raises:
        UserError: there is no such column or baseline, or the level is out of range.
    """
    if not 0 < level < 1:
        raise UserError(f"confidence must be between 0 and 1, got {level}")
    groups = group_runs(runs, by_seed=seeds)
    names = short_names([key for key in telling([group.settings for group in groups]) if key != SEED or not seeds])
    groups = _sorted(groups, sort, names)
    base = _named(groups, baseline) if baseline else None
    return Comparison(
        groups=groups,
        settings=names,
        figures=[figure for figure in FIGURES if any(figure.key in group.samples for group in groups)],
        published={group.name: group.runs[0].published for group in groups},
        baseline=base,
        differences={group.name: _differences(group, base, level) for group in groups} if base else {},
        confidence=level,
        sort=sort,
    )


def _sorted(groups: Sequence[Group], sort: str, names: Mapping[str, str]) -> list[Group]:
    key, backwards = sort.removeprefix("-"), sort.startswith("-")
    by_short_name = {short: full for full, short in names.items()}
    figure = next((figure for figure in FIGURES if figure.key == key), None)
    if figure:
        known = [group for group in groups if key in group.samples]
        known.sort(key=lambda group: group.samples[key].mean, reverse=(figure.better == "larger") != backwards)
    elif key == "name" or key in names or key in by_short_name:
        setting = by_short_name.get(key, key)
        known = [group for group in groups if key == "name" or setting in group.settings]
        texts = {id(group): group.name if key == "name" else group.settings[setting] for group in known}
        known.sort(key=lambda group: number_or_text(texts[id(group)]), reverse=backwards)
    else:
        columns = ["name", *by_short_name, *(figure.key for figure in FIGURES)]
        raise UserError(
            f"sort={sort}: there is no such column{did_you_mean(key, columns)}\nchoose from: {', '.join(columns)}"
        )
    return known + [group for group in groups if not any(group is other for other in known)]


def _named(groups: Sequence[Group], name: str) -> Group:
    place = Path(name).resolve()
    for group in groups:
        if name == group.name or any(name == run.name or place == Path(run.source).resolve() for run in group.runs):
            return group
    names = [group.name for group in groups]
    shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    raise UserError(f"baseline={name}: there is no such run{did_you_mean(name, names)}\nchoose from: {shown}")


def _differences(group: Group, base: Group, level: float) -> dict[str, Difference]:
    """Differences to the baseline in the test metrics, or in the last validation metrics if it was not tested.

    Unfinished runs are not compared, nor accuracies on different datasets.
    """
    names = {one.settings.get(DATASET, "") for one in (group, base)} - {""}
    if group is base or group.status != "finished" or len(names) > 1:
        return {}
    return {
        key: _paired(group, base, key, level)
        or difference(
            group.samples[key].values,
            base.samples[key].values,
            level,
            (group.runs[0].images(key.partition("/")[0]), base.runs[0].images(key.partition("/")[0])),
        )
        for key in (TESTED if TESTED[0] in base.samples else VALIDATED)
        if key in group.samples and key in base.samples
    }


def _paired(group: Group, base: Group, key: str, level: float) -> Difference | None:
    """The difference of two single runs image by image; None if there are no rows of the same images."""
    folders_of_rows = [Path(one.runs[0].source, folders.ROWS) for one in (group, base)]
    if len(group.runs) > 1 or len(base.runs) > 1 or not all(folder.is_dir() for folder in folders_of_rows):
        return None
    from alexnet_lab.report.recorded_rows import difference_by_image  # here, since it loads numpy

    return difference_by_image(group.runs[0], base.runs[0], key, level)
