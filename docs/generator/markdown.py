"""Keys as rows of Markdown tables, and comments as Markdown."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docs.generator.kinds import kind_text

from alexnet_lab.config.meanings import Key, read_title

REQUIRED = "required: "
"""How the meaning of a key begins that has no default."""
REFERENCE = re.compile(r"\$\{([\w.]+)\}")
VALUES = ("null", "true", "false")
NAMES = re.compile(
    "|".join(
        (
            *VALUES,
            r"[\w.]+=\S+",  # key=value
            r"\S+://\S+|[\w.*<>:${}-]+(/[\w.*<>:${}-]*)+",  # addresses and paths
            r"\*?(\.[A-Za-z]\w*)+|[A-Za-z_]\w*(\.[A-Za-z_]\w*)+",  # suffixes, dotted names
            r"\w*[a-z0-9]_\w+|\$\{\w+\}",  # names with underscores
            r"\w*\(\S+\)|[\[{]\S+[\]}]",  # calls and lists without spaces
        )
    )
)


@dataclass(frozen=True)
class Row:
    """A key of a table."""

    name: str
    kind: str
    default: str
    meaning: str


def row_of(key: Key, meaning: str, hint: Any, head: str = "") -> Row:
    """The row of a key of the type `hint`; `head` is in front of its name.

    Raises:
        ValueError: it has no meaning or no type.
    """
    kind = kind_text(hint)
    if not meaning or not kind:
        raise ValueError(f"{head}{key.name} has no {'type' if meaning else 'meaning'}")
    is_required = meaning.startswith(REQUIRED)
    default = "required" if is_required else _default(key.default)
    return Row(f"{head}{key.name}", kind, default, sentence(meaning.removeprefix(REQUIRED), kind))


def _default(text: str) -> str:
    if found := REFERENCE.fullmatch(text):
        return f"as `{found[1]}`"
    return "computed" if re.search(r"\$\{\w+:", text) else f"`{text}`"


def table(rows: Sequence[Row]) -> str:
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    lines += [f"| `{row.name}` | {row.kind} | {row.default} | {row.meaning} |" for row in rows]
    return "\n".join(lines) + "\n"


def title_of(path: Path) -> str:
    """The description of a file; its indented lines are commands."""
    text = " ".join(f"`{line.strip()}`" if line.startswith("  ") else line for line in read_title(path))
    text = re.sub(r"` (?=[A-Z])", "`. ", text)
    return text if text.endswith(".") else f"{text}."


def sentence(text: str, kind: str = "") -> str:
    """A meaning as a sentence: with a capital, unless it begins with a value, and a full stop."""
    first = re.match(r"[a-z]+(?:-[a-z]+)*(?=[ ,:;]|$)", text)
    if first and first[0] not in (*VALUES, *re.findall(r"`(\w+)`", kind)):
        text = text[0].upper() + text[1:]
    return formatted(text if text.endswith(".") else f"{text}.", kind)


def formatted(text: str, kind: str = "") -> str:
    """The text as Markdown for a cell: names, paths, and the values of the type `kind` as code."""
    values = "|".join(re.escape(value) for value in re.findall(r"`([^`]+)`", kind))
    if values:
        text = re.sub(rf"(^|[:;,] |or )({values})(?=[,:;.]| \()", r"\1`\2`", text)
    parts = re.split(r"(`[^`]*`)", text)
    parts[::2] = [re.sub(r"\S+", lambda word: _word(word[0]), part) for part in parts[::2]]
    return "".join(parts).replace("|", "\\|")


def _word(word: str) -> str:
    """The word as code if it is a name, without the punctuation around it."""
    found = re.fullmatch(r"([('\"]*)(.*?)([)'\",;:.]*)", word)
    assert found
    before, core, after = found.groups()
    if after[:1] == ")" and "(" in core:
        core, after = f"{core})", after[1:]
    if NAMES.fullmatch(core):
        return f"{before}`{core}`{after}".replace("'`", "`").replace("`'", "`")
    return re.sub(r"([*<>\[\]])", r"\\\1", word)
