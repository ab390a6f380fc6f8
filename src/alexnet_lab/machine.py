"""Functions that depend on the operating system: cores, ending with the parent process, output of any text.

Imports nothing heavy.
"""

import errno
import io
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
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


def memory() -> int:
    """Bytes of memory that this process may use: the machine's, or less in a container or a job of Slurm."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    with suppress(OSError):  # a system without Linux's control groups
        groups = Path("/proc/self/cgroup").read_text()
        own = Path("/sys/fs/cgroup", groups.rpartition("0::/")[2].strip())
        for group in (own, *own.parents):
            with suppress(OSError, ValueError):  # no file; "max"
                limits.append(int((group / "memory.max").read_text()))
    return min(limits)


def end_with_parent() -> None:
    """Let the system kill this process when its parent ends, if the system supports it."""
    import ctypes

    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class _Output(io.RawIOBase):
    """A standard stream that becomes the null device when its reader or terminal is gone."""

    def __init__(self, number: int) -> None:
        self._number = number

    def fileno(self) -> int:
        return self._number

    def isatty(self) -> bool:
        return os.isatty(self._number)

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        try:
            return os.write(self._number, content)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):
                raise
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._number)
            os.close(null)
            return len(content)


def print_without_errors() -> None:
    """Escape characters that the terminal's encoding lacks, and continue when nobody reads the output any more."""
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if not isinstance(stream, io.TextIOWrapper):
            continue
        if not _is_standard(stream, number):
            stream.reconfigure(errors="backslashreplace")
            continue
        stream.flush()
        kept = io.TextIOWrapper(
            io.BufferedWriter(_Output(number)),
            stream.encoding,
            "backslashreplace",
            # The buffer would keep what PYTHONUNBUFFERED=1 wants written at once.
            line_buffering=stream.line_buffering or stream.write_through,
        )
        setattr(sys, name, kept)


def _is_standard(stream: io.TextIOWrapper, number: int) -> bool:
    try:
        return stream.fileno() == number
    except OSError:  # a stream in memory, as in tests
        return False


def start_of(process: int) -> str:
    """The start time of a process in clock ticks since boot; empty if the system does not report it."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def is_stopped(process: int) -> bool:
    """Whether a process is stopped, as by SIGSTOP, but not by a debugger; False where the system does not say."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "T"
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
