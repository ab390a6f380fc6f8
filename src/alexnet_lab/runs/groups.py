"""Runs that are equal but for the seed make one row of the comparison."""

import itertools
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from alexnet_lab.runs.run import Run, Status, figures
from alexnet_lab.runs.settings import SEED, Settings, settings


@dataclass(frozen=True)
class Sample:
    """A figure over the runs of a group that have it; `deviation` is the sample's (n - 1), None of a single run."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float | None:
        return statistics.stdev(self.values) if len(self.values) > 1 else None


@dataclass(frozen=True)
class Group:
    """One run, or several finished ones with the same settings and different seeds; `figures` run by run."""

    name: str
    runs: tuple[Run, ...]
    settings: Settings
    figures: tuple[dict[str, float], ...]
    samples: dict[str, Sample]

    @property
    def status(self) -> Status:
        return self.runs[0].status


def group_runs(runs: Sequence[Run], by_seed: bool = True) -> list[Group]:
    """The groups of `runs`, in the order of their first members.

    Runs that have not finished are never averaged with others, and a repeated seed begins another group: it is no
    further sample. `by_seed` False: each run by itself.
    """
    members: dict[object, list[tuple[Run, Settings]]] = {}
    met: Counter[object] = Counter()
    for position, run in enumerate(runs):
        known = settings(run)
        alike = tuple(sorted((key, value) for key, value in known.items() if key != SEED))
        together = by_seed and run.status == "finished" and alike
        met[alike, known.get(SEED)] += bool(together)
        members.setdefault((alike, met[alike, known.get(SEED)]) if together else position, []).append((run, known))
    return _told_apart([_group(pairs) for pairs in members.values()])


def _told_apart(groups: Sequence[Group]) -> list[Group]:
    """Each with a name of its own: with the first run's, or, where runs share a name, with a number."""
    uses = Counter(group.name for group in groups)
    alike: Counter[str] = Counter()
    found = []
    for group in groups:
        name = group.name
        if uses[name] > 1 and len(group.runs) > 1:
            name = _listed([run.name for run in group.runs])
        alike[name] += 1
        found.append(replace(group, name=name if alike[name] == 1 else f"{name} ({alike[name]})"))
    return found


def _group(pairs: Sequence[tuple[Run, Settings]]) -> Group:
    runs = tuple(run for run, _ in pairs)
    first = pairs[0][1]
    seeds = ",".join(sorted({known.get(SEED, "") for _, known in pairs}, key=lambda text: (len(text), text)))
    known = tuple(figures(run) for run in runs)
    samples = {key: Sample(tuple(one[key] for one in known if key in one)) for one in known for key in one}
    return Group(_name([run.name for run in runs]), runs, {**first, SEED: seeds}, known, samples)


def _name(names: Sequence[str]) -> str:
    """What the names share, with a star for the rest: `lenet-s*`."""
    if len(names) == 1:
        return names[0]
    start = _shared(names)
    end = _shared([name[len(start) :][::-1] for name in names])[::-1]
    return f"{start}*{end}" if start or end else _listed(names)


def _listed(names: Sequence[str]) -> str:
    return f"{names[0]} and {len(names) - 1} more"


def _shared(texts: Sequence[str]) -> str:
    """The beginning that all have in common."""
    letters = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*texts, strict=False))
    return "".join(column[0] for column in letters)
