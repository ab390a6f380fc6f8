"""Functions that depend on the operating system: cores, ending with the parent process, output of any text.

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

PR_SET_PDEATHSIG = 1  # from Linux's <sys/prctl.h>


def cores() -> list[int]:
    """The numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def use_cores(numbers: Sequence[int]) -> None:
    """Pin this process and its children to these cores, if the system supports it."""
    if hasattr(os, "sched_setaffinity"):
        with suppress(OSError):  # a container may have lost cores since
            os.sched_setaffinity(0, numbers)


def end_with_parent() -> None:
    """Let the system kill this process when its parent ends, if the system supports it."""
    import ctypes

    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def print_any_text() -> None:
    """Escape characters that the terminal's encoding lacks, for example in file names, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def start_of(process: int) -> str:
    """The start time of a process in clock ticks since boot; empty if the system does not report it."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def is_stopped(process: int) -> bool:
    """Whether a process is stopped, as by SIGSTOP; False where the system does not say."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] in ("T", "t")
    except (OSError, IndexError):
        return False


def has_ended(process: subprocess.Popen[Any]) -> bool:
    """Whether a child process has ended. If the system supports it, the child is not reaped and keeps its id.

    Raises:
        ChildProcessError: other code has reaped it.
    """
    if hasattr(os, "waitid"):
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    return subprocess.Popen.poll(process) is not None
