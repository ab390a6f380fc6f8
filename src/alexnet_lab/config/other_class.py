"""`optimizer._target_=CLASS` on the command line: options of the chosen file that another class does not have.

Imports torch only where such a class is given.
"""

import inspect
import logging
from collections.abc import Iterable, Mapping
from typing import Any

TARGET = "_target_"


def with_own_options(settings: dict[str, Any], overrides: Iterable[str], group: str = "optimizer") -> dict[str, Any]:
    """The run's `settings`; if `overrides` name the class of `group`, without the file's options that it does not have.

    Options on the command line stay, so that a wrong one is reported.
    """
    typed = {override.partition("=")[0].lstrip("+") for override in overrides}
    node = settings.get(group)
    if f"{group}.{TARGET}" not in typed or not isinstance(node, Mapping):
        return settings
    known = _options(str(node.get(TARGET)))
    if known is None:
        return settings
    kept = {key for key in node if key.startswith("_") or key in known or f"{group}.{key}" in typed}
    return {**settings, group: {key: value for key, value in node.items() if key in kept}}


def what_is_left_out(before: Mapping[str, Any], own: Mapping[str, Any], group: str = "optimizer") -> str:
    """A line about what `with_own_options` has left out of the settings `before`; '' if nothing."""
    left_out = [key for key in before[group] if key not in own[group]]
    kept = " ".join(f"{group}.{key}={value}" for key, value in own[group].items() if not key.startswith("_"))
    options = f"options of {group}={own[group][TARGET]}"
    return f"{options}: {kept or 'its defaults'}; not its options, left out: {', '.join(left_out)}" if left_out else ""


def _options(target: str) -> frozenset[str] | None:
    """The names of the arguments; None if they cannot be determined, which is reported later."""
    from hydra.utils import get_object

    logging.getLogger("hydra.utils").setLevel(logging.CRITICAL)  # a class that does not exist is reported later
    try:
        parameters = inspect.signature(get_object(target)).parameters
    except Exception:  # a user's module may raise anything on import
        return None
    takes_any = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())
    return None if takes_any else frozenset(parameters)
