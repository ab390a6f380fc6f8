"""Whether a debugger has stopped, or may stop, this process.

Imports nothing heavy.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType

MODULES = ("bdb", "pdb")
"""Python's debugger, which most others are made of, as IPython's and pudb."""


def is_attached(frame: FrameType | None = None) -> bool:
    """Whether a debugger of Python's or the system's follows the main thread, whose innermost frame is `frame`."""
    if sys.gettrace() is not None or threading.gettrace() is not None:
        return True
    if sys.version_info >= (3, 12) and sys.monitoring.get_tool(sys.monitoring.DEBUGGER_ID) is not None:
        return True
    return has_stopped(frame) or any(one.f_trace for one in _stack(frame)) or _is_traced_by_the_system()


def has_stopped(frame: FrameType | None) -> bool:
    """Whether the code at `frame` was called by Python's debugger, as at its prompt."""
    return any(one.f_globals.get("__name__") in MODULES for one in _stack(frame))


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _is_traced_by_the_system() -> bool:
    """Whether a process such as gdb or strace is attached; Linux reports that."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("TracerPid:"):
                return line.split()[1] != "0"
    return False
