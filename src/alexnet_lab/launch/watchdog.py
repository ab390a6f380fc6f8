"""Signs of life of a rank, for the supervisor and for the rank itself. Imports nothing heavy.

A thread of the rank writes a byte per second into a pipe: a process that was stopped, or whose interpreter is stuck in
a library, writes none, and the supervisor ends it within seconds. A main thread that waits for something that never
comes looks just like a slow step, so that needs a limit that the user sets: `hang_timeout`, watched by that thread.
"""

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PIPE = "ALEXNET_LAB_HEARTBEAT"
BEAT_SECONDS = 1.0
STARTING, TRAINING, ENDING = b".", b"+", b"-"

SILENT_SECONDS = 12.0
SILENT_EDGE_SECONDS = 300.0  # loading libraries, and leaving them, may stop the interpreter for long
STOPPED = ("T", "t")


class Pulse:
    """The rank's side; `on_hang` gets the main thread's stack, as text, when that makes no progress for `timeout`.

    `timeout` in s is counted from the first progress on, since preparing data may take any time; None is no limit.
    """

    def __init__(self, timeout: float | None, on_hang: Callable[[str], None]) -> None:
        self._timeout = timeout
        self._on_hang = on_hang
        self._last: float | None = None
        self._ending = False
        self._main = threading.get_ident()
        self._pipe = int(os.environ[PIPE]) if PIPE in os.environ else None

    def start(self) -> None:
        """Begin to beat, for as long as the process lives."""
        threading.Thread(target=self._beat, daemon=True, name="heartbeat").start()

    def progress(self) -> None:
        """The main thread has finished a batch, or something else that does not take for ever."""
        self._last = time.monotonic()

    def leave(self) -> None:
        """The run is over, and the process is about to end."""
        self._ending, self._timeout = True, None
        self._write(ENDING)

    def _write(self, beat: bytes) -> None:
        if self._pipe is not None:
            with suppress(OSError):  # the supervisor is gone; the lifeline tells of that
                os.write(self._pipe, beat)

    def _beat(self) -> None:
        while not self._ending:
            self._write(STARTING if self._last is None else TRAINING)
            if self._timeout and self._last is not None and time.monotonic() - self._last > self._timeout:
                self._on_hang("".join(traceback.format_stack(sys._current_frames()[self._main])))
                return
            time.sleep(BEAT_SECONDS)


class Listener:
    """The supervisor's side: tells when a rank has been silent for too long.

    Looks are counted and not the clock, so that a Ctrl-Z that stops rank and supervisor alike does no harm.
    """

    def __init__(self) -> None:
        self._read_end, self.write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        self._silent = 0.0
        self._training = self._ending = False

    def started(self) -> None:
        """The rank has its end of the pipe."""
        os.close(self.write_end)

    def silent_for(self, pid: int, seconds: float) -> float | None:
        """How many s the rank has been silent, when that is too long; `seconds` since the last look."""
        try:
            beats = os.read(self._read_end, 4096)
        except BlockingIOError:
            beats = b""
        self._ending |= ENDING in beats
        self._training = (self._training or TRAINING in beats) and not self._ending
        self._silent = 0.0 if beats else self._silent + seconds
        if self._silent <= SILENT_SECONDS:
            return None
        short = self._training or _is_stopped(pid)
        return self._silent if short or self._silent > SILENT_EDGE_SECONDS else None

    def close(self) -> None:
        """Listen no longer."""
        os.close(self._read_end)


def _is_stopped(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in STOPPED
    except OSError:
        return False
