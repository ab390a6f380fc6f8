"""Prints the composed configuration as a tree."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text
from rich.tree import Tree


def print_tree(settings: Mapping[str, Any]) -> None:
    """Print the configuration to standard output, one branch per group."""
    tree = Tree(Text(f"run {settings['run']}", style="bold"))
    _grow(tree, {key: value for key, value in settings.items() if key not in ("run", "overrides", "resume")})
    Console().print(tree)


def _grow(tree: Tree, settings: Mapping[str, Any]) -> None:
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            _grow(tree.add(Text(str(key), style="cyan")), value)
        elif value is not None:
            tree.add(Text(f"{key}: {value}"))
