"""Requests to stop a run: Ctrl-C, SIGTERM, SIGHUP, SIGUSR1 and SIGUSR2.

Imports nothing heavy.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, Self

from alexnet_lab.errors import FAILED, INTERRUPTED, RunInterrupted
from alexnet_lab.launch import debugger, environment, slurm
from alexnet_lab.runs import folders

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
SAME_REQUEST_SECONDS = 1.0
END = b"\0"


class StopRequests:
    """Counts the requests to stop this process, from now until `close`.

    A thread gets each signal from the system's handler (`signal.set_wakeup_fd`), so requests count while the main
    thread is in C code. The thread calls `first` at the first request and `second` at each further one.

    One request often arrives as several signals: to the process group, and passed on by a shell or a scheduler. So
    another one counts only after a second. Slurm repeats its signals before it kills; there only Ctrl-C is a second
    request. Signals that the program was told to ignore, as by nohup, stay ignored. Ctrl-C in a debugger stays Ctrl-C.
    """

    def __init__(
        self,
        first: Callable[[], None] = lambda: None,
        second: Callable[[], None] = lambda: None,
        signals: Sequence[signal.Signals] = STOP_SIGNALS,
    ) -> None:
        self._first, self._second = first, second
        self._requested_at: float | None = None
        self._starting: Path | None = None
        self._restored = False
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)
        signals = [number for number in signals if signal.getsignal(number) is not signal.SIG_IGN]
        self._signals = frozenset(signals)
        self._wakeup_before = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, self._in_main_thread) for number in signals}
        self._thread = threading.Thread(target=self._count, daemon=True, name="stop requests")
        self._thread.start()
        os.register_at_fork(after_in_child=self._restore)

    @property
    def requested(self) -> bool:
        """Whether somebody has asked the run to stop."""
        return self._requested_at is not None

    def run(self, folder: Path, start: Callable[[], int]) -> int:
        """Call `start`, which trains in `folder`; returns its exit status.

        A request that arrives before the training has begun ends it at once: the status is INTERRUPTED.
        """
        self._starting = folder
        try:
            self.raise_if_requested()
            return start()
        except RunInterrupted:
            return INTERRUPTED
        finally:
            self._starting = None

    def raise_if_requested(self) -> None:
        """Raises RunInterrupted once somebody has asked to stop."""
        if self.requested:
            self._starting = None
            raise RunInterrupted("signal")

    def close(self) -> None:
        """Restore the handlers that were there before."""
        self._restore()
        os.write(self._write_end, END)
        self._thread.join()
        for number in (self._read_end, self._write_end):
            os.close(number)

    def _restore(self) -> None:
        """Also in a process that this one forks, whose signals are not requests to this one."""
        if not self._restored:
            self._restored = True
            signal.set_wakeup_fd(self._wakeup_before)
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _in_main_thread(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and debugger.has_stopped(frame):
            signal.default_int_handler(number, frame)
        self._requested_at = self._requested_at or time.monotonic()
        if self._starting and not folders.training_has_begun(self._starting):
            self.raise_if_requested()

    def _count(self) -> None:
        main = threading.main_thread().ident
        first: float | None = None
        while (received := os.read(self._read_end, 1)) != END:
            number, now = received[0], time.monotonic()
            if number not in self._signals:
                continue
            if number == signal.SIGINT and debugger.has_stopped(sys._current_frames().get(main or 0)):
                continue
            slurm.asked.append(number)
            self._requested_at = self._requested_at or now
            if first is None:
                first = now
                with suppress(Exception):  # a terminal that is gone must not end this thread
                    self._first()
            elif now - first > SAME_REQUEST_SECONDS and (number == signal.SIGINT or slurm.here().job is None):
                with suppress(Exception):
                    self._second()


class PassedOn(StopRequests):
    """Requests that are passed on to `processes`: the first as SIGTERM, so that they save and stop; a second kills."""

    def __init__(self, processes: list[Any], folder: Path | None = None) -> None:
        """`folder`: as in `print_first_request`."""
        self.processes, self._folder = processes, folder
        super().__init__(self._ask, lambda: send(self.processes, signal.SIGKILL))

    def _ask(self) -> None:
        send(self.processes, signal.SIGTERM)
        print_first_request(self._folder)


def send(processes: Sequence[subprocess.Popen[Any]], number: int) -> None:
    """Send a signal to every process that still runs."""
    for process in list(processes):
        if process.poll() is None:
            process.send_signal(number)


def end_before_training(folder: Path) -> None:
    """In a rank that does not own `folder`: end at once while the run starts, also where the main thread is in C."""
    if not folders.training_has_begun(folder):
        os._exit(INTERRUPTED)


def print_first_request(folder: Path | None = None) -> None:
    """Print what a first request does; nothing while the run in `folder` starts, since then it ends at once."""
    if folder is None or folders.is_training(folder):
        again = "" if environment.of_torchrun() else "; press Ctrl-C again to stop at once"
        print(f"\nstopping{again}", file=sys.stderr, flush=True)


def end_one_of_several(status: int) -> NoReturn:
    """End this process, one rank of several. A failed one ends at once: libraries may wait for others as they exit."""
    logging.shutdown()
    if status == FAILED:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def ignore_until_exit() -> None:
    """Let nothing interrupt the end of this process, whose result is recorded: libraries may still upload."""
    for number in STOP_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
