"""Checks that a command's configuration has exactly the keys of its primary config.

Imports nothing heavy.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from alexnet_lab.config.advice import did_you_mean
from alexnet_lab.config.primary import groups_of, keys_of
from alexnet_lab.errors import UserError

LIST_OF_CHOICES = re.compile(r"(model|data|optimizer|scheduler|trainer|checkpoints)=\[(|.*,.*)\]")


def check_keys(config: DictConfig, primary: Path) -> None:
    """Compare the keys of a composed configuration with those of the command; groups check their own keys.

    Raises:
        UserError: a key was added with + or removed with ~, or a node was replaced by a value.
    """
    own, groups = keys_of(primary), groups_of(primary)
    _check_present(config, own, "")
    for key in map(str, config):
        if key not in own and key not in groups:
            raise UserError(f"there is no option {key!r}{did_you_mean(key, own)}")


def _check_present(config: DictConfig, wanted: Mapping[str, Any], head: str) -> None:
    for key, default in wanted.items():
        if key not in config:
            raise UserError(f"{head}{key} is missing; it can be changed, but not removed")
        if isinstance(default, dict) and default:
            node = config._get_node(key)
            if not isinstance(node, DictConfig) or node._is_none():
                raise UserError(f"{head}{key}={node}: {key} must keep its keys {', '.join(default)}")
            _check_present(node, default, f"{head}{key}.")


def check_choices(overrides: Iterable[str], command: str) -> None:
    """Refuse model=[lenet,caffenet], which Hydra would merge into a mixture of both; raises UserError."""
    for override in overrides:
        if found := LIST_OF_CHOICES.fullmatch(override):
            group, choices = found.groups()
            if not choices:
                raise UserError(f"{override}: choose one {group}; --help lists the names")
            several = "compare several: " if command == "describe" else "sweep over several: -m "
            raise UserError(f"{override}: choose one {group}, or {several}{group}={choices}")
