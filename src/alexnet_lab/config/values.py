"""Checks values from YAML against type hints. Imports neither torch nor lightning."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic_core import SchemaError

from alexnet_lab.errors import UserError


def check_values(options: Mapping[str, Any], kinds: Mapping[str, Any]) -> None:
    """Check a command's options against the type hints `kinds`; raises UserError for the first mismatch."""
    for key, kind in kinds.items():
        if reason := mismatch(options[key], kind):
            raise UserError(f"{key}: {options[key]!r} does not fit: {reason}")


def mismatch(value: Any, hint: Any) -> str:
    """The reason why `value` does not have the type `hint`; '' if it does or if that cannot be determined."""
    try:
        adapter = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
    except (PydanticSchemaGenerationError, PydanticUserError, SchemaError):
        return ""
    try:
        # As JSON, because YAML has no tuples either: a list is accepted for a tuple.
        found = adapter.validate_json(json.dumps(value), strict=True)
        if isinstance(value, bool) and type(found) is int:  # Literal[1] accepts True, which equals 1
            return "Input should be a number"
    except ValidationError as error:
        # For a type that YAML cannot express, such as a tensor, pydantic only reports that it cannot check it.
        reasons = [detail["msg"] for detail in error.errors() if detail["type"] != "needs_python_object"]
        return "; or ".join(list(dict.fromkeys(reasons))[:4]) or "expected a node with a _target_"
    return ""
