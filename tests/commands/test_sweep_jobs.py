"""The processes of a sweep's jobs: how they are watched, asked to stop, and what is said of their ends."""

import os
import signal
import sys
import time
from collections.abc import Callable

from alexnet_lab.commands import supervisor
from alexnet_lab.commands.sweep import Process

COUNTS = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: print("asked", flush=True))
print("ready", flush=True)
while True:
    time.sleep(0.01)
"""


def start(code: str) -> Process:
    return Process([sys.executable, "-c", code], stdout=-1, text=True, start_new_session=True)


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_process_that_was_signalled_after_its_end_is_still_found_and_its_status_kept() -> None:
    process = start("raise SystemExit(7)")
    wait(process.has_ended)
    supervisor.send([process], signal.SIGTERM)
    process.terminate()
    assert process.has_ended()
    os.killpg(process.pid, 0)  # its number is still taken
    assert process.wait() == 7
    assert process.has_ended()
    supervisor.send([process], signal.SIGKILL)


def test_process_whose_status_somebody_else_fetched_has_ended() -> None:
    process = start("")
    os.waitpid(process.pid, 0)
    assert process.has_ended()
    assert process.wait() == 1


def test_process_is_asked_to_stop_once_however_often_it_is_called_off() -> None:
    process = start(COUNTS)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    supervisor.send([process], signal.SIGTERM)
    assert process.stdout.readline() == "asked\n"
    process.terminate()
    time.sleep(0.1)
    supervisor.send([process], signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert process.stdout.read() == ""
