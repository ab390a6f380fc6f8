"""Costs that do not depend on the machine."""

import sys
from collections.abc import Callable
from typing import Any


def calls(function: Callable[[], Any]) -> int:
    """The number of Python and C functions that the second call of `function()` calls.

    Compare with a margin: the interpreter makes additional calls, for example to collect garbage.
    """
    function()
    count = 0

    def note(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count
