"""The settings `freeze` and `layers`: patterns over the names of a network's layers and parameters.

A pattern, as of `fnmatch`, matches a parameter if it matches the parameter's name (`conv1.bias`) or the name of a
module that contains it (`conv1`; `features`, which contains `features.0`). The word `last` is the last layer with
parameters.
"""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import accumulate
from typing import Any, NamedTuple

from torch import nn

from alexnet_lab.errors import UserError, names_of
from alexnet_lab.models.table import LayerRow

LAST = "last"
SHOWN = 12


class Factors(NamedTuple):
    """The factors of a parameter's learning rate and weight decay."""

    lr: float = 1.0
    weight_decay: float = 1.0


def last_layer(layers: Sequence[LayerRow]) -> str:
    """The name of the last layer with parameters, in the order of the forward pass."""
    return next((row.name for row in reversed(layers) if row.parameters), "")


def freeze(net: nn.Module, patterns: Iterable[Any], last: str) -> None:
    """Exclude the matching parameters from training: they get no gradient.

    Raises:
        UserError: a pattern matches nothing, or all parameters match.
    """
    parameters = dict(net.named_parameters())
    for pattern in patterns:
        for name in _matching(f"freeze=[{pattern}]", pattern, parameters, last):
            parameters[name].requires_grad_(False)
    if parameters and not any(parameter.requires_grad for parameter in parameters.values()):
        raise UserError(f"freeze: this freezes all layers ({_layers_of(parameters)}); leave one of them to train")


def factors_by_name(net: nn.Module, layers: Iterable[Mapping[str, Any]], last: str) -> dict[str, Factors]:
    """The factors of each parameter that a `pattern` of `layers` matches; the first one decides.

    Raises:
        UserError: a pattern matches nothing.
    """
    names = [name for name, _ in net.named_parameters()]
    found: dict[str, Factors] = {}
    for one in layers:
        factors = Factors(**{key: one[key] for key in Factors._fields if key in one})
        for name in _matching(f"layers: {one['pattern']}", one["pattern"], names, last):
            found.setdefault(name, factors)
    return found


def _matching(setting: str, pattern: Any, names: Iterable[str], last: str) -> list[str]:
    found = [name for name in names if _matches(str(pattern), name, last)]
    if not found:
        raise UserError(f"{setting}: no layer has such a name; the layers: {_layers_of(names)}")
    return found


def _matches(pattern: str, name: str, last: str) -> bool:
    if pattern == LAST and name.rpartition(".")[0] == last:
        return True
    # `features.0.weight` is in `features` and in `features.0`.
    return any(fnmatchcase(part, pattern) for part in accumulate(name.split("."), "{}.{}".format))


def _layers_of(names: Iterable[str]) -> str:
    return names_of(list(dict.fromkeys(name.rpartition(".")[0] for name in names)), SHOWN)
