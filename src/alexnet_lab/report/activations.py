"""Recorded runs that differ only in activation, normalisation and learning rate.

Imports neither torch nor lightning.
"""

import statistics
from collections.abc import Iterable, Sequence

from alexnet_lab.config.schema import Effect, effect
from alexnet_lab.runs.groups import TARGET, RecipeKey, recipe_groups, recipe_key, settings
from alexnet_lab.runs.recipe import NOT_MEASURED, mean, not_comparable
from alexnet_lab.runs.run import Run

ACTIVATION, NORM, RATE = "model.activation", "model.norm", "optimizer.lr"
METRIC = "test/top1"
ENOUGH = 0.75
"""Accuracy on the training images; the paper's figure 1 compares ReLU and tanh by the epochs to an error of 25 %."""


def activations(runs: Sequence[Run]) -> Iterable[str]:
    """A section with a table for each family of recorded runs in which activation or normalisation differs.

    Runs that were not tested are left out.
    """
    families: dict[RecipeKey, list[list[Run]]] = {}
    for group in recipe_groups([run for run in runs if run.metric(METRIC) is not None]).values():
        families.setdefault(_family(group[0]), []).append(group)
    compared = [groups for groups in families.values() if len({_switches(group[0]) for group in groups}) > 1]
    if not compared:
        return
    yield from ("", "## Activations and normalisations", "")
    yield "The runs of a table differ in nothing else but the device. The best lr depends on activation and norm."
    yield f"Training top-1 is over an epoch, with dropout. Epochs to {ENOUGH}: of each seed, until it is at least that."
    for groups in compared:
        yield from _table(groups)


def _family(run: Run) -> RecipeKey:
    """All other settings that change more than the speed."""
    name, known = recipe_key(run.config)
    free = (ACTIVATION, NORM, RATE)
    return name, frozenset((key, text) for key, text in known if key not in free and effect(key) is not Effect.SPEED)


def _switches(run: Run) -> tuple[str, str]:
    known = settings(run.config)
    return known.get(ACTIVATION, ""), known.get(NORM, "")


def _table(groups: Sequence[Sequence[Run]]) -> Iterable[str]:
    config = groups[0][0].config
    common = [text for text in not_comparable(config) if text.partition("=")[0] not in (ACTIVATION, NORM, RATE)]
    network, data = config["model"][TARGET].rpartition(".")[2], config["data"]["name"]
    yield from ("", f"{' '.join([config['recipe']['name'], *common])}: {network} on {data}.", "")
    columns = ("activation", "norm", "lr", "device", "seeds", "test top-1", "training top-1, epoch 1", "last epoch")
    yield f"| {' | '.join(columns)} | epochs to {ENOUGH} |"
    yield f"|{'---|' * (len(columns) + 1)}"
    for group in sorted(groups, key=lambda group: statistics.mean(_tested(group)), reverse=True):
        known, curves = settings(group[0].config), [curve for run in group if (curve := _train(run))]
        cells = [known.get(ACTIVATION, ""), known.get(NORM, ""), known.get(RATE, "")]
        devices = dict.fromkeys(run.result["hardware"]["device"] for run in group)
        cells += [", ".join(devices), str(len(group))]
        cells.append(mean(_tested(group)))
        cells += [mean([curve[place] for curve in curves]) if curves else NOT_MEASURED for place in (0, -1)]
        yield f"| {' | '.join([*cells, ', '.join(_epochs_to(ENOUGH, curve) for curve in curves)])} |"


def _tested(group: Sequence[Run]) -> list[float]:
    """Test top-1 by seed."""
    return [value for run in group if (value := run.metric(METRIC)) is not None]


def _train(run: Run) -> list[float]:
    """Training top-1 by epoch."""
    return [row["train/top1"] for row in run.rows if "train/top1" in row]


def _epochs_to(top1: float, curve: Sequence[float]) -> str:
    return next((str(epoch) for epoch, value in enumerate(curve, start=1) if value >= top1), f"> {len(curve)}")
