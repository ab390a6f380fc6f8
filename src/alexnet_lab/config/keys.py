"""The keys of a command's configuration: those of its primary config, none missing and no others.

Imports nothing heavy.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from alexnet_lab.config.advice import GROUP_IN_DEFAULTS, did_you_mean
from alexnet_lab.errors import UserError

LIST_OF_CHOICES = re.compile(r"(model|data|optimizer|scheduler|trainer|checkpoints)=\[(|.*,.*)\]")


def check_keys(config: DictConfig, primary: Path) -> None:
    """Compare the keys of a composed configuration with those that the file `primary` has; the groups check their own.

    Raises:
        UserError: a key was added with a + or removed with a ~, or a node has another value in its place.
    """
    text = primary.read_text()
    own: dict[str, Any] = OmegaConf.to_container(OmegaConf.create(text))  # type: ignore[assignment]
    own = {key: value for key, value in own.items() if key not in ("defaults", "hydra")}
    _check_present(config, own, "")
    groups = GROUP_IN_DEFAULTS.findall(text)
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
                raise UserError(f"{head}{key}={node}: a node with the keys {', '.join(default)}, none of them removed")
            _check_present(node, default, f"{head}{key}.")


def check_choices(overrides: Iterable[str]) -> None:
    """Refuse model=[lenet,caffenet], whose files Hydra merges into one that is neither; raises UserError."""
    for override in overrides:
        if found := LIST_OF_CHOICES.fullmatch(override):
            group, choices = found.groups()
            if not choices:
                raise UserError(f"{override}: one {group} is needed; --help lists their names")
            raise UserError(f"{override}: one {group} at a time; a sweep over them is -m {group}={choices}")
