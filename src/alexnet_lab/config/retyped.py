"""Corrected command lines for words that Hydra cannot read; each line can be pasted.

Imports nothing heavy.
"""

import os
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from alexnet_lab.command_line import CALLER, command, command_name, quoted
from alexnet_lab.config import arguments
from alexnet_lab.config.arguments import ASSIGNMENT, LISTS, NAMES, PATHS, SETTINGS
from alexnet_lab.config.run_names import check_name
from alexnet_lab.errors import UserError

PATH_OPTION = {
    "predict": "images",
    "prepare": "source",
    "compare": "runs",
    "results": "add",
    **dict.fromkeys(("evaluate", "export"), "checkpoint"),
}
"""By command, the option of a path that was typed without a key."""
TAKES_TEXT = ("logger.", "callbacks.", "hydra.")
"""Prefixes of options that can be any text, in addition to paths and names."""


def unreadable(argument: str, reason: str, command_name: str) -> str:
    """The message for an argument that Hydra cannot read: the quoted command line, otherwise Hydra's `reason`."""
    try:
        if (found := ASSIGNMENT.fullmatch(argument)) is None:
            if line := _with_path(argument, command_name):
                return f"{argument}: arguments have the form KEY=VALUE; with the key:\n{line}"
            if (line := _joined(argument)) is None:
                return f"{argument}: arguments have the form KEY=VALUE; --help lists the keys"
        elif found["text"].startswith("[") and (whole := _list_of(argument)):
            line = whole
        elif not _takes_text(found["key"]) or (fixed := _as_text(argument)) is None:
            return f"{argument}: Hydra cannot parse this: {reason}"
        elif argument in sys.argv[1:]:
            line = _line({place: _as_text(word) or word for place, word in enumerate(sys.argv[1:])})
        else:
            line = shlex.join([fixed])
    except UserError as error:
        return str(error)
    return f"{argument}: Hydra cannot parse this; quoted for Hydra and for the shell:\n{line}"


def ambiguous(argument: str, conf: str, command_name: str) -> str:
    """The message for a comma without -m: command lines in which it is text, a list, or a sweep."""
    head, _, text = argument.partition("=")
    key = head.lstrip("+")
    if key in NAMES:
        try:
            check_name(text)
        except UserError as error:
            return str(error)
    lines = {}
    if _takes_text(key):
        lines["as one value"] = _replaced(argument, f"{head}={quoted(text)}")
    if _takes_list(key, conf, command_name):
        lines["as a list"] = _replaced(argument, f"{head}=[{text}]")
    if not lines and command_name == "train" and argument in sys.argv[1:]:
        lines["as a sweep"] = command(command_name, "-m", *arguments.given)
    if not lines:
        return f"{argument}: a comma separates the values of a sweep, and {key} takes one value"
    explained = f"a comma separates the values of a sweep (-m); {', and '.join(lines)}:"
    return "\n".join([f"{argument}: {explained}", *lines.values()])


def _takes_text(key: str) -> bool:
    return key in PATHS or key in NAMES or key.startswith(TAKES_TEXT)


def _takes_list(key: str, conf: str, command_name: str) -> bool:
    """Whether `key` is a list of paths, or has a list as its value in a file of `conf`."""
    if key in SETTINGS.get(command_name, ()):
        return True
    if key in PATHS:
        return key in LISTS and (key != "out" or command_name in ("compare", "describe"))
    group, _, rest = key.partition(".")
    files = Path(conf, group).glob("*.yaml") if rest else [Path(conf, f"{command_name}.yaml")]
    nodes = (OmegaConf.to_container(OmegaConf.load(file)) for file in files)
    return any(isinstance(_value(node, rest or group), list) for node in nodes)


def _value(node: Any, key: str) -> Any:
    for part in key.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node


def _replaced(argument: str, new: str) -> str:
    """The user's command line with `argument` replaced by `new`."""
    words = sys.argv[1:]
    return _line({words.index(argument): new}) if argument in words else shlex.join([new])


def _line(changed: Mapping[int, str]) -> str:
    """The user's command line with the words at some positions replaced; all other words are as typed."""
    words = zip(arguments.given, sys.argv[1:], strict=True)
    new = [typed if changed.get(place, read) == read else changed[place] for place, (typed, read) in enumerate(words)]
    return command(command_name(), *new)


def _as_text(argument: str) -> str | None:
    """The argument with its value in Hydra's quotes; None if Hydra can read it, or quotes do not help.

    Raises:
        UserError: it is a run's name with invalid characters.
    """
    found = ASSIGNMENT.fullmatch(argument)
    if found is None or not re.search(r"\w", found["text"]) or _readable(argument):
        return None
    text = found["text"]
    if found["key"] in NAMES:
        check_name(text)
    is_list = text.startswith("[") and text.endswith("]")
    if is_list or "-m" in arguments.given or "--multirun" in arguments.given:
        items = (text[1:-1] if is_list else text).split(",")
        text = ",".join(quoted(item.strip().strip("'\"")) for item in items)
        return found["head"] + (f"[{text}]" if is_list else text)
    return found["head"] + quoted(text)


def _readable(argument: str) -> bool:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        OverridesParser.create().parse_override(argument)
    except HydraException:
        return False
    return True


def _with_path(argument: str, name: str) -> str | None:
    """The command line with the words from `argument` on as paths of the command's path option.

    None if the command has no such option, or the word is part of a path that the shell has split at a space.
    """
    key = PATH_OPTION.get(name)
    if key is None or argument not in sys.argv[1:]:
        return None
    place = sys.argv[1:].index(argument)
    before = ASSIGNMENT.fullmatch(arguments.given[place - 1]) if place else None
    cut = before and before["key"] in PATHS and not _exists(before["text"])
    if cut and before and (not _exists(argument) or _exists(f"{before['text']} {argument}")):
        return None
    last = _next_option(place)
    loose = [os.path.expanduser(word) for word in arguments.given[place:last]]
    if before and before["key"] == key:
        place, loose = place - 1, [before["text"], *loose]
    elif any((found := ASSIGNMENT.fullmatch(word)) and found["key"] == key for word in arguments.given):
        return None
    if len(loose) > 1 and name == "export":
        return None
    text = quoted(loose[0]) if len(loose) == 1 else f"[{','.join(map(quoted, loose))}]"
    return command(name, *arguments.given[:place], f"{key}={text}", *arguments.given[last:])


def _joined(argument: str) -> str | None:
    """The command line with `argument` joined to the value before it, which the shell has split at a space.

    None if there is no such value, or the argument itself is an existing file.

    Raises:
        UserError: the value is a run's name, and names have no spaces.
    """
    if argument not in sys.argv[1:] or _exists(argument):
        return None
    place = sys.argv[1:].index(argument)
    first = next((n for n in range(place, -1, -1) if "=" in arguments.given[n]), None)
    if first is None or any(word.startswith("-") for word in arguments.given[first : place + 1]):
        return None
    last = _next_option(place)
    found = ASSIGNMENT.fullmatch(" ".join(arguments.given[first:last]))
    if found is None:
        return None
    if found["key"] in NAMES:
        check_name(found["text"])
    is_list = found["text"].startswith("[") and _readable(found[0])
    if not is_list and not _takes_text(found["key"]):
        return None
    whole = found[0] if is_list else found["head"] + quoted(found["text"])
    return command(command_name(), *arguments.given[:first], whole, *arguments.given[last:])


def _list_of(argument: str) -> str | None:
    """The command line with the whole list that begins with `argument`, which the shell has split at a space."""
    place = sys.argv[1:].index(argument) + 1 if argument in sys.argv[1:] else len(arguments.given)
    return None if _next_option(place) == place else _joined(arguments.given[place])


def _next_option(place: int) -> int:
    """The position of the next option or flag."""
    words = arguments.given
    return next((n for n in range(place, len(words)) if "=" in words[n] or words[n].startswith("-")), len(words))


def _exists(path: str) -> bool:
    return os.path.lexists(Path(os.environ[CALLER], os.path.expanduser(path)))
