"""Writes command lines quoted for the shell and for Hydra, so that every printed line can be pasted.

Imports nothing heavy.
"""

import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HEAD = "ALEXNET_LAB_COMMAND"
"""Environment variable: how the user started the program, as `python src/train.py`; for its child processes too."""
CALLER = "ALEXNET_LAB_CALLER"
"""Environment variable: the folder that the user is in."""
PLAIN = re.compile(r"(?!(?:true|false|null|nan|inf)\Z)[a-z_/][\w/.+-]*", re.IGNORECASE | re.ASCII)
"""Text that needs no quotes in Hydra."""


def command(name: str, *overrides: str) -> str:
    """The command line that starts `src/<name>.py` from the user's folder with `overrides`, as returned by `override`.

    >>> command("train", override("run", "a, b"))
    python src/train.py 'run="a, b"'
    """
    *python, script = shlex.split(os.environ.get(HEAD, "python src/train.py"))
    return shlex.join([*python, str(Path(script).with_name(f"{name}.py")), *overrides])


def from_here(path: Path) -> str:
    """The path as the user can type it: relative if it is inside their working folder, otherwise absolute."""
    here = os.environ.get(CALLER) or os.getcwd()
    return os.path.relpath(path, here) if Path(os.path.abspath(path)).is_relative_to(here) else os.path.abspath(path)


def typed(key: str, value: Any) -> str:
    """`key=value`, quoted for the shell: `'run="a, b"'`."""
    return shlex.quote(override(key, value))


def override(key: str, value: Any) -> str:
    """`key=value` in Hydra's syntax, without the shell's quoting: `run="a, b"`."""
    return f"{key}={written(value)}"


def written(value: Any) -> str:
    """A value in Hydra's grammar: text, a path, a number, a truth value, None, or a list or dict of these."""
    if isinstance(value, str | os.PathLike):
        # Escape text that OmegaConf would read as an interpolation.
        return quoted(re.sub(r"(\\*)\$\{", r"\1\1\\${", os.fspath(value)))
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{written(item)}' for key, item in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(written, value))}]"
    return "null" if value is None else str(value).lower()


def quoted(text: str) -> str:
    """Text in Hydra's quotes if necessary; interpolations are kept."""
    if PLAIN.fullmatch(text):
        return text
    # Backslashes count as escapes only in front of a quote.
    escaped = re.sub(r'(\\*)("|\Z)', lambda found: found[1] * 2 + found[2].replace('"', r"\""), text)
    return f'"{escaped}"'
