"""Writes command lines quoted for the shell and for Hydra, so that every printed line can be pasted.

Imports nothing heavy.
"""

import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from alexnet_lab import places

HEAD = "ALEXNET_LAB_COMMAND"
"""Environment variable: how the user started the program, `python src/train.py` or `alexnet-lab train`; also for its
child processes."""
USUAL_HEAD = "python src/train.py" if places.CHECKOUT else "alexnet-lab train"
CALLER = "ALEXNET_LAB_CALLER"
"""Environment variable: the folder that the user is in."""
PLAIN = re.compile(r"(?!(?:true|false|null|nan|inf)\Z)[a-z_/][\w/.+-]*", re.IGNORECASE | re.ASCII)
"""Text that needs no quotes in Hydra."""


def command(name: str, *overrides: str) -> str:
    """The command line that starts the command `name` from the user's folder, in the way that this program was started.

    `overrides` are as returned by `override`.

    >>> command("train", override("run", "a, b"))
    python src/train.py 'run="a, b"'
    """
    return _command(os.environ.get(HEAD) or USUAL_HEAD, name, overrides)


def usual_command(name: str, *overrides: str) -> str:
    """As `command`, for documents: it does not depend on how the program was started."""
    return _command(USUAL_HEAD, name, overrides)


def _command(head: str, name: str, overrides: Sequence[str]) -> str:
    *start, last = shlex.split(head)
    return shlex.join([*start, str(Path(last).with_name(f"{name}.py")) if last.endswith(".py") else name, *overrides])


def command_name() -> str:
    """The name of the command that the user has started: `train`."""
    return Path(shlex.split(os.environ.get(HEAD) or USUAL_HEAD)[-1]).stem


def install(extra: str) -> str:
    """The command line that installs an extra of pyproject.toml, for a user of the scripts or of the program."""
    is_script = shlex.split(os.environ.get(HEAD) or USUAL_HEAD)[-1].endswith(".py")
    if is_script:
        return f"pip install -e '.[{extra}]'"
    receipt = Path(sys.prefix, "uv-receipt.toml")  # there in an environment of `uv tool`
    if receipt.exists():
        return f"uv tool install --force {_tool(receipt.read_text(), extra)}"
    python = sys.executable
    pip = [python, "-m", "pip", "install"] if find_spec("pip") else ["uv", "pip", "install", "--python", python]
    return shlex.join([*pip, f"alexnet-lab[{extra}]"])


def _tool(receipt: str, extra: str) -> str:
    """What `uv tool install` takes for the package with a further extra, from the same source as in uv's receipt."""
    import tomllib

    (ours,) = (one for one in tomllib.loads(receipt)["tool"]["requirements"] if one["name"] == "alexnet-lab")
    extras = f"[{','.join(sorted({*ours.get('extras', []), extra}))}]"
    if "editable" in ours:
        return shlex.join(["--editable", ours["editable"] + extras])
    local = ours.get("directory") or ours.get("path")
    git, _, revision = ours.get("git", "").partition("?rev=")
    source = Path(local).as_uri() if local else ours.get("url") or (f"git+{git}" + f"@{revision}" * bool(revision))
    return shlex.quote(f"alexnet-lab{extras} @ {source}" if local or git or "url" in ours else f"alexnet-lab{extras}")


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
