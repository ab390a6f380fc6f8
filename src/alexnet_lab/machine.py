"""What not every machine offers: the cores of a process, ending with its parent, a terminal for any text.

Imports nothing heavy.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1  # of Linux's <sys/prctl.h>


def cores() -> list[int]:
    """The numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def use_cores(numbers: Sequence[int]) -> None:
    """Keep this process and its children on these cores, where the system can do so."""
    if hasattr(os, "sched_setaffinity"):
        with suppress(OSError):  # cores that a container has lost since
            os.sched_setaffinity(0, numbers)


def end_with_parent() -> None:
    """Have the system kill this process when its parent ends, where the system can do so."""
    import ctypes

    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def print_any_text() -> None:
    """Escape what the terminal's encoding lacks, as in names of files, in place of an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def start_of(process: int) -> str:
    """When a process started, in clock ticks since the system's start; empty where the system does not say."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def has_ended(process: subprocess.Popen[Any]) -> bool:
    """Whether a child process has ended. It is not reaped, so that its number stays taken, where the system can do so.

    Raises:
        ChildProcessError: something else has reaped it.
    """
    if hasattr(os, "waitid"):
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    return subprocess.Popen.poll(process) is not None
