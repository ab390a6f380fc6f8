"""The keys of a configuration file with their defaults and meanings, which are the comments of the file.

`--help` and docs/configuration.md show them. A comment belongs to a key if it is

- behind the value; comment lines below it continue it if their `#` is in the same column;
- on the lines directly above the key, with the same indentation, for long explanations.

The comment at the top of the file describes the file, and a comment that is followed by a blank line a section of it.
Imports nothing heavy.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

NOT_KEYS = ("defaults", "hydra", "_target_", "_partial_", "_recursive_")


@dataclass(frozen=True)
class Key:
    """A key of a configuration file."""

    name: str
    """With the names of the nodes that contain it: `data.dir`."""
    default: str
    """As in the file, without quotes."""
    meaning: str
    """Empty if the file has no comment for it."""


def read_keys(path: Path) -> list[Key]:
    """The keys of a file, in its order, without Hydra's own."""
    text = path.read_text(encoding="utf-8")
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    return [] if not isinstance(node, yaml.MappingNode) else list(_keys(node, text, ""))


def read_groups(path: Path) -> list[Key]:
    """The groups in the defaults of a command, with their choices and meanings."""
    text = path.read_text(encoding="utf-8")
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(node, yaml.MappingNode)
    (defaults,) = (value for key, value in node.value if key.value == "defaults")
    groups = [item for item in defaults.value if isinstance(item, yaml.MappingNode)]
    keys = [key for group in groups for key in _keys(group, text, "")]
    return [key for key in keys if not key.name.startswith("override ")]


def read_title(path: Path) -> list[str]:
    """The lines of the comment at the top of a file, up to an empty comment line."""
    lines = path.read_text(encoding="utf-8").splitlines()
    lines = [line for line in lines if not line.startswith("# @package")]
    title = []
    for line in lines:
        if not line.startswith("# "):
            break
        title.append(line[2:])
    return title


def _keys(node: yaml.MappingNode, text: str, above: str) -> Iterator[Key]:
    lines = text.splitlines()
    for key, value in node.value:
        if key.value in NOT_KEYS:
            continue
        name = f"{above}{key.value}"
        if isinstance(value, yaml.MappingNode) and {one.value for one, _ in value.value} - {"_target_"}:
            yield from _keys(value, text, f"{name}.")
            continue
        start, end = value.start_mark, value.end_mark
        quoted = isinstance(value, yaml.ScalarNode) and value.style
        default = value.value if quoted else " ".join(text[start.index : end.index].split())
        if (
            isinstance(value, yaml.MappingNode) and value.value and not value.flow_style
        ):  # ends where the next key begins
            end = value.value[-1][1].end_mark
            default = f"{{{default}}}"
        yield Key(name, default, _meaning(lines, key.start_mark.line, key.start_mark.column, end.line, end.column))


def _meaning(lines: list[str], first: int, column: int, last: int, end: int) -> str:
    """The comment of the key in the lines `first` to `last`, whose value ends in column `end`."""
    found: list[str] = []
    own = re.compile(rf" {{{column}}}# ?(.*)")
    for line in reversed(lines[:first]):
        comment = own.fullmatch(line)
        if not comment:
            break
        found.insert(0, comment[1])
    if len(found) == first:  # the comment at the top of the file
        found = []
    behind = re.fullmatch(r"\s*# ?(.*)", lines[last][end:])
    if behind:
        found.append(behind[1])
        continued = re.compile(rf" {{{lines[last].index('#', end)}}}# ?(.*)")
        for line in lines[last + 1 :]:
            comment = continued.fullmatch(line)
            if not comment:
                break
            found.append(comment[1])
    return " ".join(" ".join(found).split())
