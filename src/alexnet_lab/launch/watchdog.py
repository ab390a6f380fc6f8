"""Ends a rank whose main thread makes no progress for `hang_timeout` seconds.

Imports nothing heavy.
"""

import faulthandler
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import FrameType
from typing import TextIO

from alexnet_lab.launch import debugger

LOOK_SECONDS = 1.0
BACKSTOP_SECONDS = 300.0
"""So much later than `hang_timeout`, faulthandler ends a process in which no Python thread runs any more."""


class Watchdog:
    """A thread that looks each second whether `progress` was called since.

    Looks are counted, not the clock, so that a process that was stopped (Ctrl-Z, a suspended job) is not taken for one
    that hangs. It counts from the first progress on, since preparing data may take any time.
    """

    def __init__(self, timeout: float | None, on_hang: Callable[[list[str]], None], log: TextIO | None = None) -> None:
        """`on_hang` is called in the thread, with the main thread's stack, after `timeout` s; None is no limit.

        `log` gets the stacks of all threads where even this thread does not run.
        """
        self._timeout, self._on_hang, self._log = timeout, on_hang, log
        self._progress: float | None = None
        self._suspended = False
        self._main = threading.get_ident()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="watchdog")

    def start(self) -> None:
        """Begin to look, from the main thread; without a limit no thread is started."""
        if self._timeout:
            self._thread.start()
            if signal.getsignal(signal.SIGTSTP) is signal.SIG_DFL:
                signal.signal(signal.SIGTSTP, self._suspend)

    def _suspend(self, number: int, frame: FrameType | None) -> None:
        """Stop at Ctrl-Z, as without a handler, but with the backstop off: its clock does not stop."""
        self._suspended = True
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._suspend)
        self._suspended = False

    def progress(self) -> None:
        """To be called when a batch, an epoch or a checkpoint is done."""
        self._progress = time.monotonic()

    def stop(self) -> None:
        """Stop looking."""
        self._over.set()
        if signal.getsignal(signal.SIGTSTP) == self._suspend:
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        assert self._timeout
        seen, silent = self._progress, 0.0
        looked = time.monotonic()
        try:
            while not self._over.wait(min(LOOK_SECONDS, self._timeout / 4)):
                before, looked = looked, time.monotonic()
                if self._progress is None:
                    continue
                silent = 0.0 if self._progress != seen else silent + min(looked - before, 2 * LOOK_SECONDS)
                seen = self._progress
                if self._log and not self._suspended:
                    faulthandler.dump_traceback_later(self._timeout + BACKSTOP_SECONDS, exit=True, file=self._log)
                if silent <= self._timeout:
                    continue
                frame = sys._current_frames().get(self._main)
                if debugger.is_attached(frame):
                    silent = 0.0
                else:
                    self._on_hang(traceback.format_stack(frame))
                    return
        finally:
            if self._log:
                faulthandler.cancel_dump_traceback_later()
