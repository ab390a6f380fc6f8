"""Allows Hydra's flags in any position of the command line; everything else is KEY=VALUE.

Imports nothing heavy.
"""

import re
import shlex
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NoReturn

from hydra._internal.utils import get_args_parser  # Hydra has no public name for its argument parser

from alexnet_lab.command_line import quoted
from alexnet_lab.errors import UserError

NAMELESS = re.compile(r"[+~]*=")
NUMBER = re.compile(r"[\d.+e-]+")


def in_front(words: Sequence[str], nearest: Callable[[str], str]) -> list[str]:
    """The command line with flags before overrides: argparse accepts overrides in one place only.

    Args:
        words: the command line without the program.
        nearest: returns the option closest to a name; empty if none is close.

    Raises:
        UserError: a word with dashes is not a flag of Hydra, a flag has a wrong value, or a value has no key.
    """
    if nameless := [word for word in words if NAMELESS.match(word)]:
        raise UserError(f"{nameless[0]}: arguments have the form KEY=VALUE; --help lists the keys")
    parser = get_args_parser()
    parser.error = _refuse  # type: ignore[method-assign]
    try:
        known, unknown = parser.parse_known_intermixed_args(_with_topic(words))
    except UserError as error:
        raise _not_a_flag(parser, words, nearest) or error from None
    if wrong := [word for word in unknown if word.startswith("-")]:
        raise _not_a_flag(parser, words, nearest) or UserError(f"{wrong[0]}: there is no such flag")
    overrides = list(known.overrides)
    count = Counter(overrides)
    flags: list[str] = []
    for word in reversed(_with_topic(words)):
        if count[word]:
            count[word] -= 1
        else:
            flags.insert(0, word)
    return [*flags, *overrides]


def _with_topic(words: Sequence[str]) -> list[str]:
    """`--info` would take an override that follows as its topic, so it gets its default topic explicitly."""
    following = [*words, "="][1:]
    return [
        "--info=all" if word in ("--info", "-i") and ("=" in after or after.startswith(("-", "~"))) else word
        for word, after in zip(words, following, strict=True)
    ]


def _refuse(message: str) -> NoReturn:
    raise UserError(message)


def _not_a_flag(parser: ArgumentParser, words: Sequence[str], nearest: Callable[[str], str]) -> UserError | None:
    """The error for the first word that begins with a dash but is not a flag; None if there is none."""
    takes_value = {name: action.nargs != 0 for action in parser._actions for name in action.option_strings}
    for word, after in zip(words, [*words, ""][1:], strict=True):
        flag, equals, value = word.partition("=")
        if not word.startswith("-") or (flag in takes_value and (takes_value[flag] or not equals)):
            continue
        key = flag.lstrip("-").replace("-", "_")
        if not equals:
            value = "VALUE" if not after or after.startswith("-") or "=" in after else after
        option = nearest(key)
        right = shlex.quote(f"{option}={value if NUMBER.fullmatch(value) else quoted(value)}")
        hint = f": {right}" if option else "; `--cfg job` prints every option"
        return UserError(f"{word}: options have the form KEY=VALUE, without dashes{hint}")
    return None
