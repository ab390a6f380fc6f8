"""The settings of a network that an older version recorded, with today's keys. Imports nothing heavy."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import yaml

from alexnet_lab import places

FORMER = "lrn"
"""Former key of networks with local response normalisation: true is `norm: lrn` of today, false `norm: none`."""

OVERRIDES = {f"model.{FORMER}=true": "model.norm=lrn", f"model.{FORMER}=false": "model.norm=none"}


def with_current_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a run, whose `model` has all keys of today.

    A key that the run did not record came later, and has the value of `conf/model`, which is how the network was then.
    """
    model = config.get("model")
    if not isinstance(model, Mapping) or not isinstance(model.get("_target_"), str):
        return dict(config)
    current = {**config, "model": current_keys(model)}
    if isinstance(overrides := config.get("overrides"), list):
        current["overrides"] = [OVERRIDES.get(text, text) for text in overrides]
    return current


def current_keys(model: Mapping[str, Any]) -> dict[str, Any]:
    """The settings `model`, in their order, and then the keys that they lack."""
    found = {key: value for key, value in model.items() if key != FORMER}
    if FORMER in model:
        found["norm"] = "lrn" if model[FORMER] else "none"
    for key, value in _of_conf().get(model["_target_"], {}).items():
        found.setdefault(key, value)
    return found


@cache
def _of_conf() -> dict[str, dict[str, Any]]:
    """The switches of each network of `conf/model` by its `_target_`; not what follows from the data."""
    nodes = [yaml.safe_load(path.read_text()) for path in sorted((places.CONF / "model").glob("*.yaml"))]
    return {
        node["_target_"]: {key: value for key, value in node.items() if key in ("activation", "norm", "pooling")}
        for node in nodes
    }
