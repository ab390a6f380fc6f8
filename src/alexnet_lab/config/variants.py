"""Several values of an option of describe, model=lenet,alexnet_d2l: one configuration for each combination.

Imports nothing heavy.
"""

from collections.abc import Sequence
from itertools import product
from pathlib import Path

from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig

from alexnet_lab.config.arguments import ASSIGNMENT
from alexnet_lab.config.keys import check_choices, check_keys
from alexnet_lab.errors import UserError

DESCRIBE = "describe"
GROUPS = ("model", "data", "experiment")
MOST = 16
FLAGS_OF_ONE = ("-m", "--multirun", "-c", "--cfg", "-i", "--info")
"""Flags of Hydra for one configuration, or for a sweep."""

others: list[list[str]] = []
"""The arguments of this process's networks except the first one's, which are in `sys.argv`."""


def split(config_name: str, arguments: Sequence[str]) -> list[str]:
    """The arguments of the first network that describe shows; those of the others are kept in `others`.

    Raises:
        UserError: too many networks, or a value is repeated.
    """
    others.clear()
    if config_name != DESCRIBE or any(argument.partition("=")[0] in FLAGS_OF_ONE for argument in arguments):
        return list(arguments)
    choices = [_values(argument) for argument in arguments]
    number = 1
    for values in choices:
        number *= len(values)
    if number > MOST:
        raise UserError(f"describe shows up to {MOST} networks side by side, got {number}")
    first, *rest = (list(one) for one in product(*choices))
    others[:] = rest
    return first


def _values(argument: str) -> list[str]:
    """One argument for each value of a list; an argument that Hydra cannot read is unchanged, it reports it itself."""
    found = ASSIGNMENT.fullmatch(argument)
    if not found or found["key"].partition(".")[0] not in GROUPS:
        return [argument]
    try:
        override = OverridesParser.create().parse_override(argument)
        if override.is_sweep_override() and not override.is_interval_sweep():
            values = list(override.sweep_string_iterator())
            _check_repetition(argument, values)
            return [found["head"] + value for value in values] or [argument]
    except HydraException:
        pass
    return [argument]


def _check_repetition(argument: str, values: Sequence[str]) -> None:
    if repeated := next((value for value in values if values.count(value) > 1), None):
        raise UserError(f"{argument}: {repeated} is there {values.count(repeated)} times; name each value once")


def composed(config_name: str, primary: Path) -> list[DictConfig]:
    """The configurations of `others`, checked; within a command that Hydra has started.

    Raises:
        UserError: a wrong key.
        HydraException: a wrong name or value.
    """
    configs = []
    for arguments in others:
        overrides = [one for one in arguments if ASSIGNMENT.fullmatch(one) or one.startswith("~")]
        configs.append(compose(config_name, overrides))
        check_choices(overrides, config_name)
        check_keys(configs[-1], primary)
    return configs
