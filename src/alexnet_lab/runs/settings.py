"""The settings of runs: flat, without what belongs to one run only, and which of them differ."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from alexnet_lab.runs.run import Run

# Where a run lies, how it was started, watched and evaluated: nothing of it changes the result.
BOOKKEEPING = (
    *("run", "folder", "sweep_name", "overrides", "resume", "hang_timeout", "logger", "checkpoints", "recipe"),
    *("callbacks.progress", "callbacks.pictures", "data.dir", "data.eval_batch_size"),
    *("trainer.log_every_n_steps", "trainer.profiler"),
)
# Others own these facts and the configuration copies them.
COPIES = ("data.seed", "data.image_size", "data.channels_last", "model.in_channels", "model.num_classes")
SEED = "seed"
TARGET = "_target_"
DATASET = f"data.{TARGET}"
ABSENT = ""

Settings = dict[str, str]


def settings(run: Run) -> Settings:
    """The run's settings by dotted key, as text, the seed included; a `_target_` by its last name."""
    flat = dict(_flat(run.config))
    name = flat.pop("data.name", None)
    if name is not None:
        flat[DATASET] = name  # several datasets share a factory
    return {key: text for key, text in flat.items() if not _within(key, (*BOOKKEEPING, *COPIES))}


def differing(all_settings: Sequence[Settings]) -> list[str]:
    """The keys whose values differ, in the order of the configuration; a key that some lack differs too."""
    keys = dict.fromkeys(key for one in all_settings for key in one)
    return [key for key in keys if len({one.get(key, ABSENT) for one in all_settings}) > 1]


def telling(all_settings: Sequence[Settings]) -> list[str]:
    """Those of the differing keys that have several values.

    A key with one value which some runs lack comes with another choice (a network's own option) or with the run's age.
    """
    return [
        key for key in differing(all_settings) if len({one[key] for one in all_settings if one.get(key, ABSENT)}) > 1
    ]


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Each key's last elements, as few as tell it from the others; `model._target_` is `model`."""
    paths = {key: tuple(part for part in key.split(".") if part != TARGET) or (key,) for key in keys}
    names = {}
    for key, path in paths.items():
        others = [other for name, other in paths.items() if name != key]
        lengths = range(1, len(path) + 1)
        length = next((n for n in lengths if all(other[-n:] != path[-n:] for other in others)), len(path))
        names[key] = ".".join(path[-length:])
    return names


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in node.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        elif key == TARGET:
            yield name, str(value).rpartition(".")[2]
        else:
            yield name, _text(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(_plain(value), default=str)


def _plain(value: Any) -> Any:
    """0 and 0.0 are the same setting, and W&B writes the one for the other."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 1e15
    return int(value) if whole else value


def _within(key: str, parents: Iterable[str]) -> bool:
    return any(key == parent or key.startswith(f"{parent}.") for parent in parents)
