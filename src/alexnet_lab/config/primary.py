"""The primary configuration file of a command, and what it includes. Imports nothing heavy."""

import re
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

GROUP_IN_DEFAULTS = re.compile(r"^  - (?:override )?/?(\w+):", re.MULTILINE)
INCLUDED = re.compile(r"^  - (?!_self_)(\w+)$", re.MULTILINE)


def files_of(primary: Path) -> list[Path]:
    """The file `primary`, and the primary file that it includes: describe takes what train takes."""
    return [primary, *(primary.with_stem(name) for name in INCLUDED.findall(primary.read_text()))]


def groups_of(primary: Path) -> list[str]:
    """The configuration groups of the command."""
    return [group for path in files_of(primary) for group in GROUP_IN_DEFAULTS.findall(path.read_text())]


def keys_of(primary: Path) -> dict[str, Any]:
    """The top-level keys of the command that are no groups, with their defaults."""
    nodes: list[Any] = [OmegaConf.to_container(OmegaConf.load(path)) for path in files_of(primary)]
    keys = {key: value for node in nodes for key, value in node.items()}
    return {key: value for key, value in keys.items() if key not in ("defaults", "hydra")}
