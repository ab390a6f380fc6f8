"""The types of configuration keys in words, from type hints."""

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt

SIMPLE = {str: "text", int: "whole number", float: "number", NoneType: "null", Path: "text"}
BOUNDS = {Ge: ("ge", "at least"), Gt: ("gt", "above"), Le: ("le", "at most"), Lt: ("lt", "below")}
NOT_IN_YAML = ("Tensor", "timedelta", "device")


def hints_of(found: Any) -> dict[str, Any]:
    """The type hints of a function, of a class's arguments, or of the fields of a dataclass or pydantic model."""
    has_fields = hasattr(found, "model_fields") or is_dataclass(found)
    function = inspect.unwrap(found.__init__) if inspect.isclass(found) and not has_fields else found
    try:
        return get_type_hints(function, include_extras=True)
    except NameError:  # of a name that the module imports for type checkers only
        hints = {}
        for name, text in function.__annotations__.items():
            with suppress(NameError):
                hints[name] = eval(text, function.__globals__)
        return hints


def kind_text(hint: Any) -> str:
    """A type in the words of YAML: `number`, `list of text`, or the possible values."""
    options = [*dict.fromkeys(_kinds(hint))]
    if "number" in options:
        options = [one for one in options if one != "whole number"]
    options = [one for one in options if one != "null"] + [one for one in options if one == "null"]
    return f"{', '.join(options[:-1])} or {options[-1]}" if len(options) > 1 else "".join(options)


def _kinds(hint: Any) -> Iterator[str]:
    origin, inner = get_origin(hint), get_args(hint)
    if hint is bool:
        yield from ("`true`", "`false`")
    elif hint is Any:
        yield "any value"
    elif hint in SIMPLE:
        yield SIMPLE[hint]
    elif origin is Literal:
        yield from (f"`{value}`" for value in inner)
    elif origin in (Union, UnionType):
        yield from (text for one in inner for text in _kinds(one))
    elif origin is Annotated:
        bounds = ", ".join(_bounds(inner[1:]))
        yield from (f"{text} ({bounds})" if bounds and "number" in text else text for text in _kinds(inner[0]))
    elif (
        hint in (dict, Mapping)
        or origin in (dict, Mapping)
        or (inspect.isclass(hint) and hasattr(hint, "model_fields"))
    ):
        yield "keys"
    elif hint in (list, tuple) or origin in (list, tuple, Sequence):
        of = kind_text(Union[tuple(one for one in inner if one is not ...)]) if inner else ""  # noqa: UP007
        yield f"list of {of}{'s' if of.endswith('number') else ''}".removesuffix(" of ")
    elif inspect.isclass(hint) and hint.__name__ not in NOT_IN_YAML:
        yield "a node with `_target_`"


def _bounds(metadata: Iterable[Any]) -> Iterator[str]:
    for one in metadata:
        parts = getattr(one, "metadata", [one])  # of pydantic's Field
        for part in parts:
            if type(part) in BOUNDS:
                name, words = BOUNDS[type(part)]
                yield f"{words} {getattr(part, name)}"
