"""Rewrites the command line before Hydra reads it: paths become absolute, and `~` is expanded.

A typed path is relative to the user's folder, but the program works in the home. So paths are made absolute
here, once for all ranks and jobs. Imports nothing heavy.
"""

import errno
import glob
import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alexnet_lab import places
from alexnet_lab.command_line import CALLER, quoted, written
from alexnet_lab.config.run_names import check_name
from alexnet_lab.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

PATHS = frozenset({
    *("images", "out", "sheet", "source", "stream", "checkpoint", "runs", "baseline", "add", "resume", "data.dir"),
    *("init", "model.pretrained", "logger.mlflow.tracking_uri", "hydra.run.dir", "hydra.sweep.dir"),
    *("hydra.sweeper.storage", "rows", "against"),
})  # fmt: skip
"""The options that are paths, or lists of paths."""
SETTINGS = {"compare": ("rows", "columns")}
"""Options of a command that are names of settings, or lists of them, though another command may take a path."""
LISTS = frozenset({"images", "source", "checkpoint", "runs", "add", "out", "against"})
"""Path options that take a list in at least one command; `out` only in compare and describe."""
PATTERNS = frozenset({"images", "runs", "source"})
OR_NAMES = frozenset({"baseline"})
"""Options that can also be a name: their value is a path only if that path exists."""
WORDS = {"resume": ("auto",), "checkpoint": ("torchvision",), "against": ("torchvision",), "init": ("torchvision",)}
OR_RUNS = frozenset({"init"})
"""Options that can also be the name of a run."""
NAMES = frozenset({"run"})
"""Options that are text even if Hydra would read a number: run=12."""
RUNS = "logs/train/runs"
FOLDER_FLAGS = ("--config-dir", "-cd")
FOLDER_OF_FLAG = re.compile(r"^(?:--config-dir|-cd)=")
ASSIGNMENT = re.compile(r"(?P<head>\+{0,2}(?P<key>[\w./@$-]+)=)(?P<text>.*)", re.DOTALL)
ADDRESS = re.compile(r"wandb:|local:|[A-Za-z][\w+.-]*://")
SCHEMES = "sqlite:///|journal:|bvlc_alexnet:|caffenet:"
"""What is in front of the path of a file."""
FILE_ADDRESS = re.compile(f"({SCHEMES})(.+)", re.DOTALL)
TILDE = re.compile(rf"(^|[\[,]\s*)({SCHEMES}|)(~[^\[\],'\"]*)")

given: list[str] = []
"""The arguments as typed, in the order of `sys.argv[1:]`."""


def prepare(caller: Path, command: str) -> None:
    """Rewrite `sys.argv` for a user of `command` whose working folder is `caller`; keep the typed command line."""
    given[:] = sys.argv[1:]
    os.environ[CALLER] = str(caller)
    sys.argv[1:] = rewritten(given, caller, command)


def command_head(name: str) -> str:
    """The start of the command line of the command `name`, as typed.

    It is `python src/train.py`, `alexnet-lab train` or `python -m alexnet_lab train`.
    """
    python, program = sys.orig_argv[0], sys.argv[0]
    if program.endswith(os.path.join("alexnet_lab", "__main__.py")):
        return shlex.join([python, "-m", "alexnet_lab", name])
    if program.endswith(".py"):
        return shlex.join([python, program])
    found = shutil.which(os.path.basename(program))  # a shell passes on the path of what it has found
    in_path = found and os.path.exists(program) and os.path.samefile(found, program)
    return shlex.join([os.path.basename(program) if in_path else program, name])


def folder_flag(words: Sequence[str]) -> list[str]:
    """The words that name the user's folder of configurations, `--config-dir FOLDER`; empty if it is not given."""
    for place, word in enumerate(words):
        if word in FOLDER_FLAGS:
            return list(words[place : place + 2])
        if word.startswith(tuple(f"{flag}=" for flag in FOLDER_FLAGS)):
            return [word]
    return []


def folders(conf: str) -> list[Path]:
    """The folders of configurations: `conf` and the user's."""
    own = [word for word in folder_flag(sys.argv) if word not in FOLDER_FLAGS]
    return [Path(conf), *(Path(FOLDER_OF_FLAG.sub("", word)) for word in own)]


def rewritten(arguments: Sequence[str], caller: Path, command: str = "train") -> list[str]:
    """The arguments of `command` with absolute paths; those that Hydra cannot read are unchanged, it reports them."""
    done: list[str] = []
    is_sweep = "-m" in arguments or "--multirun" in arguments
    for argument in arguments:
        if done and done[-1] in FOLDER_FLAGS:
            argument = str(caller / Path(argument).expanduser())
        flag, _, folder = argument.partition("=")
        if flag in FOLDER_FLAGS and folder:
            argument = f"{flag}={caller / Path(folder).expanduser()}"
        elif (found := ASSIGNMENT.fullmatch(argument)) and found["key"] not in SETTINGS.get(command, ()):
            argument = _rewritten(found, caller, is_sweep)
        done.append(argument)
    return done


def _rewritten(found: re.Match[str], caller: Path, is_sweep: bool) -> str:
    head, key = found["head"], found["key"]
    text = TILDE.sub(_expanded, found["text"]) if "~" in found["text"] else found["text"]
    if key not in PATHS and key not in NAMES:
        return head + text
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import ChoiceSweep
    from hydra.errors import HydraException

    try:
        value = OverridesParser.create().parse_override(head + text).value()
    except HydraException:
        return head + text

    for one in value.list if isinstance(value, ChoiceSweep) else [value]:
        if key in NAMES and isinstance(one, list | dict):
            check_name(text)
        _check_path(key, one, f"{head}{text}")

    def changed(item: Any, whole: str | None = None) -> Any:
        """The user's path as an absolute path; numbers become text."""
        if item is None or (isinstance(item, bool) and key == "model.pretrained"):
            return item
        if isinstance(item, list):
            return [changed(one) for one in item]
        item = getattr(item, "text", item)  # a string in Hydra's quotes
        name = item if isinstance(item, str) else whole or str(item)
        return name if key in NAMES else absolute(name, key, caller)

    if isinstance(value, ChoiceSweep):
        if not value.simple_form or not is_sweep:
            return head + text
        return head + ",".join(_text(changed(item)) for item in value.list)
    new = changed(value, text.strip())
    return head + text if new == value else head + _text(new)


def _check_path(key: str, value: Any, argument: str) -> None:
    """Raises UserError if `value` is not a path, a list of paths or null."""
    items = value if isinstance(value, list) else [value]
    if isinstance(value, dict) or any(isinstance(item, list | dict) for item in items):
        raise UserError(f"{argument}: {key} takes a path{' or a list of paths' if key in LISTS else ''}")
    if key not in NAMES and any(getattr(item, "text", item) == "" for item in items):
        raise UserError(f"{argument}: the path is empty; name a file or a folder")
    if isinstance(value, list) and None in value:
        raise UserError(f"{argument}: null is not a path; remove it from the list")


def _text(value: Any) -> str:
    """`value` in Hydra's syntax; interpolations are unchanged."""
    if isinstance(value, str):
        return quoted(value)
    return f"[{','.join(map(_text, value))}]" if isinstance(value, list) else written(value)


def _expanded(found: re.Match[str]) -> str:
    new = os.path.expanduser(found[3])
    return found[0] if new == found[3] else found[1] + written(found[2] + new)


def absolute(text: str, key: str, caller: Path) -> str:
    """The typed path as an absolute path; addresses and words such as `auto` are unchanged.

    Raises:
        UserError: a name in the path is longer than the file system allows.
    """
    if found := FILE_ADDRESS.fullmatch(text):
        return found[1] + absolute(found[2], found[1], caller)
    if not text or text in WORDS.get(key, ()) or ADDRESS.match(text) or text.startswith("${"):
        return text
    typed = os.path.expanduser(text)
    path = os.path.join(caller, typed)
    exists = _exists(path, key)
    if os.path.isabs(typed) or (key in OR_NAMES and not exists):
        return typed
    if key in OR_RUNS and not exists and (run := places.home() / RUNS / typed).is_dir():
        return _literal(str(run))
    if "${" in typed:
        return os.path.join(_literal(str(caller)), typed)
    if key in PATTERNS and glob.has_magic(typed) and not exists:
        return _literal(os.path.join(glob.escape(str(caller)), typed))
    return _literal(os.path.realpath(path) if ".." in Path(typed).parts else os.path.normpath(path))


def make_defaults_absolute(config: "DictConfig") -> None:
    """Make the default paths in `config` absolute, so that a run records paths that are valid from every home.

    In a checkout that is its own home they stay relative: they are then the same on every machine.
    """
    from omegaconf import OmegaConf

    home = places.home()
    if home == places.CHECKOUT:
        return
    for key in PATHS:
        path = OmegaConf.select(config, key)
        if isinstance(path, str) and (new := absolute(path, key, home)) != path:
            OmegaConf.update(config, key, new)


def _exists(path: str, key: str) -> bool:
    try:
        os.lstat(path)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise UserError(f"{key}={path[:80]}...: {error.strerror}") from None
        return False
    return True


def _literal(path: str) -> str:
    """The path, escaped so that OmegaConf finds no interpolation."""
    return path.replace("${", r"\${")
