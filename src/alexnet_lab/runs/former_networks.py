"""The settings of a network that an older version recorded, with today's keys. Imports nothing heavy."""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import yaml

from alexnet_lab import places

FORMER = "lrn"
"""Former key of networks with local response normalisation: true is `norm: lrn` of today, false `norm: none`."""

OVERRIDE = re.compile(rf"model\.{FORMER}=(true|false)", re.IGNORECASE)


def with_current_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a run, whose `model` has all keys of today if it is a network of `conf/model`.

    A key that the run did not record came later, and has the value of `conf/model`, which is how the network was then.
    A network of the user's own keeps its keys, also one that is called `lrn`.
    """
    model = config.get("model")
    if not isinstance(model, Mapping) or str(model.get("_target_")) not in _of_conf():
        return dict(config)
    current = {**config, "model": _current_keys(model)}
    if isinstance(overrides := config.get("overrides"), list):
        current["overrides"] = [_current_override(text) for text in overrides]
    return current


def _current_keys(model: Mapping[str, Any]) -> dict[str, Any]:
    """The settings `model`, in their order, and then the keys that they lack."""
    found = {key: value for key, value in model.items() if key != FORMER}
    if FORMER in model:
        found["norm"] = _norm(model[FORMER])
    for key, value in _of_conf()[model["_target_"]].items():
        found.setdefault(key, value)
    return found


def _current_override(text: str) -> str:
    """Hydra takes `False` for `false`."""
    former = OVERRIDE.fullmatch(text) if isinstance(text, str) else None
    return f"model.norm={_norm(former[1].lower() == 'true')}" if former else text


def _norm(has_lrn: bool) -> str:
    return "lrn" if has_lrn else "none"


@cache
def _of_conf() -> dict[str, dict[str, Any]]:
    """The switches of each network of `conf/model` by its `_target_`; not what follows from the data."""
    nodes = [yaml.safe_load(path.read_text()) for path in sorted((places.CONF / "model").glob("*.yaml"))]
    return {
        node["_target_"]: {key: value for key, value in node.items() if key in ("activation", "norm", "pooling")}
        for node in nodes
    }
