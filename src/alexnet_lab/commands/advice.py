"""Turns an error of Hydra's or OmegaConf's into what is wrong and what would be right."""

import difflib
import re
from collections.abc import Iterable
from pathlib import Path

from hydra.errors import OverrideParseException

from alexnet_lab.commands import arguments
from alexnet_lab.errors import UserError

UNKNOWN_KEY = re.compile(r"Key '(?P<key>[^']+)' is not in struct\s+full_key: (?P<full>\S+)")
AMBIGUOUS = re.compile(r"Ambiguous value for argument '(?P<argument>.*?)'\n1\. ", re.DOTALL)
UNKNOWN_OPTION = re.compile(r"Could not (?:find|load) '(?P<group>[^']+)/(?P<option>[^'/]*)'")
LONGEST_LINE = 240
EXTRAS = {"optuna": "optuna", "submitit_slurm": "slurm", "submitit_local": "slurm", "ray": "ray"}
"""The extra of pyproject.toml that brings a plugin of Hydra's."""
UNKNOWN_GROUP = re.compile(r"Could not override '(?P<group>[^']+)'\.\s*\n?.*No match in the defaults list", re.DOTALL)


def advice(error: BaseException, conf: str) -> str:
    """One or a few lines for `error`; `conf` is the folder of the configuration groups."""
    for cause in _causes(error, hidden=True):
        if isinstance(cause, UserError):
            return str(cause)
        if isinstance(cause, OverrideParseException):
            if line := arguments.correction(cause.override or ""):
                return f"{cause.override}: this cannot be read; quoted for the shell and for Hydra, it can:\n{line}"
            return f"{cause.override}: this cannot be read, {str(cause.message).splitlines()[0]}"
    text = "\n".join(str(cause) for cause in _causes(error))
    if match := AMBIGUOUS.search(text):
        given = match["argument"]
        lines = arguments.corrections_of_commas(given)
        return "\n".join([f"{given}: a comma makes a list, or a sweep (-m); as one text, and as a list:", *lines])
    if match := UNKNOWN_OPTION.search(text):
        group, option = match["group"], match["option"]
        if group.startswith("hydra/"):
            remedy = f"; pip install -e '.[{EXTRAS[option]}]' brings it" if option in EXTRAS else ""
            return f"{group}={option}: there is no such plugin{remedy}"
        options = sorted(path.stem for path in Path(conf, group).glob("*.yaml"))
        hint = did_you_mean(option, options)
        return f"{group}={option}: there is no such {group}{hint}\nchoose from: {', '.join(options)}"
    if match := UNKNOWN_KEY.search(text):
        return _unknown_key(match["full"], conf)
    if match := UNKNOWN_GROUP.search(text):
        group = match["group"]
        groups = sorted(path.name for path in Path(conf).iterdir() if path.is_dir())
        if group in groups:
            return f"this command has no {group}; --help tells what it takes"
        return f"there is no option group {group!r}{did_you_mean(group, groups)}; groups: {', '.join(groups)}"
    return "\n".join(dict.fromkeys(line[:LONGEST_LINE] for line in text.splitlines() if line.strip()))


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """', did you mean ...?' where one of `words` is close to `word`, else ''."""
    close = difflib.get_close_matches(word, list(words), n=1)
    return f", did you mean {close[0]}?" if close else ""


def _unknown_key(key: str, conf: str) -> str:
    head, _, last = key.rpartition(".")
    return f"there is no option {key!r}{did_you_mean(last, _siblings(head, conf))}\n`--cfg job` prints every option"


def _siblings(head: str, conf: str) -> set[str]:
    """The keys that files of the configuration declare below `head` ('' is the top level)."""
    folder = Path(conf, *head.split(".")) if head else Path(conf)
    keys = {key for path in folder.glob("*.yaml") for key in re.findall(r"^(\w+):", path.read_text(), re.MULTILINE)}
    groups = set() if head else {path.name for path in folder.iterdir() if path.is_dir()}
    return (keys | groups) - {"defaults", "hydra"}


def _causes(error: BaseException | None, hidden: bool = False) -> Iterable[BaseException]:
    """`error` and what led to it; `hidden`: also what OmegaConf hides, as an error of a resolver."""
    while error is not None:
        yield error
        error = error.__cause__ or (error.__context__ if hidden else None)
