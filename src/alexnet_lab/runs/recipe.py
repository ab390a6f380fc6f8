"""A run beside its recipe: what it changes, and the published metrics as text."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from alexnet_lab.command_line import usual_command
from alexnet_lab.config.schema import Effect, effect
from alexnet_lab.runs.groups import SEED

NOT_MEASURED = "not measured here"
ACCURACIES = ("top1", "top5")
CHOSEN_WITH_A_RECIPE = (SEED, "experiment", "sweep")
"""Overrides that choose the recipe and its runs."""


def command(config: Mapping[str, Any], *flags: str) -> str:
    """The command line of the recipe, without the seed and what does not change the result."""
    return usual_command("train", *flags, f"experiment={config['recipe']['name']}", *changes(config))


def changes(config: Mapping[str, Any]) -> list[str]:
    """The run's overrides that change its recipe."""
    return [text for text in config.get("overrides", []) if _is_change(*_key_and_value(text))]


def not_comparable(config: Mapping[str, Any]) -> list[str]:
    """The run's overrides after which its metrics do not compare with those that its recipe's source published."""
    return [text for text in changes(config) if effect(_key_and_value(text)[0]) is not Effect.SPEED]


def _is_change(key: str, value: str) -> bool:
    return effect(key) not in (Effect.NONE, Effect.COPY) and key not in CHOSEN_WITH_A_RECIPE


def _key_and_value(override: str) -> tuple[str, str]:
    key, _, value = override.lstrip("+~").partition("=")
    return key.partition("@")[0], value


def mean(values: Sequence[float], digits: int = 4, sign: str = "-") -> str:
    """With the standard deviation of the sample if there are several; `sign` as in format specifications."""
    text = f"{statistics.mean(values):{sign}.{digits}f}"
    return f"{text} +- {statistics.stdev(values):.{digits}f}" if len(values) > 1 else text


def published_text(figure: Mapping[str, Any] | None, joint: str = " +- ") -> str:
    """A published metric, as `0.803 +- 0.016`; empty for None."""
    if not figure:
        return ""
    deviation = figure.get("deviation")
    return f"{figure['value']}" + (f"{joint}{deviation}" if deviation is not None else "")
