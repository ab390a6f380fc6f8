"""The settings that decide a run's result, and the groups of runs that differ only in the seed, for every command."""

import itertools
import json
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from alexnet_lab.config.by_device import PRECISION, PRODUCTS
from alexnet_lab.config.schema import Effect, default, effect
from alexnet_lab.runs.run import Run, Status

SEED = "seed"
TARGET = "_target_"
DATASET = f"data.{TARGET}"
ABSENT = ""
PRECISIONS = {"32": "32-true", "64": "64-true", "16": "16-mixed", "bf16": "bf16-mixed"}
"""Lightning's other names of a precision."""

Settings = dict[str, str]
RecipeKey = tuple[str, frozenset[tuple[str, str]]]


def settings(config: Mapping[str, Any]) -> Settings:
    """The settings by dotted key, as text, without those that have no effect on the result or repeat another.

    The seed is one of them. A `_target_` is given by its last name.
    """
    known = flat(config)
    name = known.pop("data.name", None)
    if name is not None:
        known[DATASET] = name  # several datasets share a factory
    if PRECISION in known:
        known[PRECISION] = PRECISIONS.get(known[PRECISION], known[PRECISION])
        if known[PRECISION] != "32-true":  # the network has no products of float32
            known.pop(PRODUCTS, None)
    return {key: text for key, text in known.items() if effect(key) not in (Effect.NONE, Effect.COPY)}


def apart_from_seed(known: Settings) -> frozenset[tuple[str, str]]:
    """The settings that are equal in runs which differ only in the seed.

    A setting at its default, null where the schema has none, counts as absent, since older runs lack later keys.
    """
    return frozenset((key, text) for key, text in known.items() if key != SEED and text != setting_text(default(key)))


def differing(all_settings: Sequence[Settings]) -> list[str]:
    """The keys whose values differ, in the order of the configuration; also those that some runs lack."""
    keys = dict.fromkeys(key for one in all_settings for key in one)
    return [key for key in keys if len({one.get(key, ABSENT) for one in all_settings}) > 1]


def telling(all_settings: Sequence[Settings]) -> list[str]:
    """The differing keys that have several values.

    A key with one value that some runs lack comes with another choice (a network's own option) or with the run's age.
    """
    return [
        key for key in differing(all_settings) if len({one[key] for one in all_settings if one.get(key, ABSENT)}) > 1
    ]


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """The last parts of each key, as few as make it unique; `model._target_` is `model`."""
    paths = {key: tuple(part for part in key.split(".") if part != TARGET) or (key,) for key in keys}
    names = {}
    for key, path in paths.items():
        others = [other for name, other in paths.items() if name != key]
        lengths = range(1, len(path) + 1)
        length = next((n for n in lengths if all(other[-n:] != path[-n:] for other in others)), len(path))
        names[key] = ".".join(path[-length:])
    return names


@dataclass(frozen=True)
class Sample:
    """A number over the runs of a group that have it; `deviation` is the sample's (n - 1), None for a single run."""

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

    Only finished runs are averaged. A repeated seed begins another group, since it is not a further sample. With
    `by_seed` False each run is a group.
    """
    members: dict[object, list[tuple[Run, Settings]]] = {}
    met: Counter[object] = Counter()
    for position, run in enumerate(runs):
        known = settings(run.config)
        alike = apart_from_seed(known)
        together = by_seed and run.status == "finished" and alike
        met[alike, known.get(SEED)] += bool(together)
        members.setdefault((alike, met[alike, known.get(SEED)]) if together else position, []).append((run, known))
    return _told_apart([_group(pairs) for pairs in members.values()])


def recipe_groups(runs: Iterable[Run]) -> dict[RecipeKey, list[Run]]:
    """The runs of recipes that differ only in the seed, by `recipe_key`."""
    groups: dict[RecipeKey, list[Run]] = {}
    for run in runs:
        groups.setdefault(recipe_key(run.config), []).append(run)
    return groups


def recipe_key(config: Mapping[str, Any]) -> RecipeKey:
    """What runs of one recipe have in common that differ only in the seed."""
    return config["recipe"]["name"], apart_from_seed(settings(config))


def _told_apart(groups: Sequence[Group]) -> list[Group]:
    """The groups with unique names: with the first run's name, or, where runs share a name, with a number."""
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
    known = tuple(run.figures for run in runs)
    samples = {key: Sample(tuple(one[key] for one in known if key in one)) for one in known for key in one}
    return Group(_name([run.name for run in runs]), runs, {**first, SEED: seeds}, known, samples)


def _name(names: Sequence[str]) -> str:
    """The common part of the names, with a star for the rest: `lenet-s*`."""
    if len(names) == 1:
        return names[0]
    start = _shared(names)
    end = _shared([name[len(start) :][::-1] for name in names])[::-1]
    return f"{start}*{end}" if start or end else _listed(names)


def _listed(names: Sequence[str]) -> str:
    return f"{names[0]} and {len(names) - 1} more"


def _shared(texts: Sequence[str]) -> str:
    """The common beginning."""
    letters = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*texts, strict=False))
    return "".join(column[0] for column in letters)


def flat(config: Mapping[str, Any]) -> Settings:
    """Every setting by dotted key, as text; a `_target_` by its last name."""
    return dict(_flat(config))


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in node.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        elif key == TARGET:
            yield name, str(value).rpartition(".")[2]
        else:
            yield name, setting_text(value)


def setting_text(value: Any) -> str:
    """A setting's value as it is compared and shown: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(_plain(value), default=str)


def _plain(value: Any) -> Any:
    """0 and 0.0 are the same setting, and W&B writes one for the other."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 1e15
    return int(value) if whole else value
