"""The effect of leaving a part out: recorded runs that differ by one job of `conf/sweep/ablations_2012.yaml`.

Imports neither torch nor lightning.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from alexnet_lab import places
from alexnet_lab.runs.groups import RecipeKey, recipe_groups, recipe_key
from alexnet_lab.runs.recipe import ACCURACIES, NOT_MEASURED, changes, mean
from alexnet_lab.runs.run import Run

SWEEP = places.CONF / "sweep" / "ablations_2012.yaml"
PAPER = "krizhevsky_2012"
"""The experiment whose recipe lists the effect of each job in the paper."""


def read_jobs() -> dict[str, list[str]]:
    """The overrides of each job of the sweep; the baseline has none."""
    jobs: Any = OmegaConf.to_container(OmegaConf.load(SWEEP).hydra.sweeper.jobs)
    return {str(name): list(overrides) for name, overrides in jobs.items()}


def ablations(runs: Sequence[Run], recipes: Mapping[str, Mapping[str, Any]]) -> Iterable[str]:
    """A section for each group of recorded runs of a full network for which runs of at least one ablation job exist.

    Differences are taken between runs of the same seed. There is no section if `recipes` lacks `krizhevsky_2012`.
    """
    if PAPER not in recipes:
        return
    tested = [run for run in runs if run.metric("test/top1") is not None]
    groups, jobs, paper = recipe_groups(tested), read_jobs(), recipes[PAPER]["ablations"]
    yield from ("", "## Ablations of the paper", "")
    yield "Change in accuracy from the full recipe, with the same seed. The paper's values are for ImageNet."
    found = False
    for whole in groups.values():
        if not _is_full(whole[0].config["model"]):
            continue
        parts = {name: groups.get(key) if key else None for name, key in _keys(whole[0], jobs).items()}
        if any(_pairs(whole, part) for part in parts.values() if part):
            found = True
            network = whole[0].config["model"]["_target_"].rpartition(".")[2]
            title = " ".join([whole[0].config["recipe"]["name"], *changes(whole[0].config)])
            top1, top5 = (mean([run.result["final"][f"test/{name}"] for run in whole]) for name in ACCURACIES)
            yield from ("", f"The full recipe: {title}, {network}, top-1 {top1}, top-5 {top5}.")
            yield from _table(whole, parts, paper)
    if not found:
        yield from _table([], dict.fromkeys((name for name, overrides in jobs.items() if overrides)), paper)


def _is_full(model: Mapping[str, Any]) -> bool:
    """Whether it is a network with the paper's parts: towers, LRN and ReLU. Other networks have their own section."""
    return "towers" in model and model.get("norm") == "lrn" and model.get("activation") == "relu"


def _keys(whole: Run, jobs: Mapping[str, Sequence[str]]) -> dict[str, RecipeKey | None]:
    """The grouping key of each job's runs; None for a job that does not apply to `whole`."""
    keys: dict[str, RecipeKey | None] = {}
    for name, overrides in jobs.items():
        if overrides:
            config = changed(whole.config, overrides)
            keys[name] = None if config is None else recipe_key(config)
    return keys


def changed(config: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any] | None:
    """`config` with the overrides applied; None if one of them sets a missing key, or the value it already has."""
    result = copy.deepcopy(dict(config))
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        *path, key = override.key_or_group.split(".")
        node: Any = result
        for part in path:
            node = node.get(part, {})
        if key not in node or node[key] == override.value():
            return None
        node[key] = override.value()
    return result


def _pairs(whole: Sequence[Run], part: Sequence[Run]) -> list[tuple[Run, Run]]:
    """Pairs of runs with the same seed."""
    by_seed = {run.config["seed"]: run for run in part}
    return [(run, by_seed[run.config["seed"]]) for run in whole if run.config["seed"] in by_seed]


def _table(
    whole: Sequence[Run], parts: Mapping[str, Sequence[Run] | None], paper: Mapping[str, Mapping[str, Any]]
) -> Iterable[str]:
    yield ""
    yield "| job | seeds | top-1, paper | top-1 | top-5, paper | top-5 | note on the paper's value |"
    yield "|---|---|---|---|---|---|---|"
    for name, part in parts.items():
        pairs, published = _pairs(whole, part or []), paper.get(name, {})
        cells = [name, str(len(pairs))]
        for figure in ACCURACIES:
            values = [b.result["final"][f"test/{figure}"] - a.result["final"][f"test/{figure}"] for a, b in pairs]
            stated = published.get("published", {}).get(figure)
            cells += [f"{stated:+.4f}" if stated is not None else "", mean(values, sign="+") if pairs else NOT_MEASURED]
        yield f"| {' | '.join([*cells, published.get('note', '')])} |"
