"""Requests to stop: which signals count, when they end a run at once, and what a second one does."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from alexnet_lab.errors import INTERRUPTED
from alexnet_lab.launch import slurm, stopping
from alexnet_lab.launch.stopping import STOP_SIGNALS, StopRequests
from alexnet_lab.runs import folders

SOURCE = str(Path(stopping.__file__).parents[2])


@pytest.fixture(autouse=True)
def _no_slurm(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(slurm, "asked", [])
    monkeypatch.setattr(stopping, "SAME_REQUEST_SECONDS", 0.2)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    slurm.here.cache_clear()
    yield
    slurm.here.cache_clear()


def wait(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_request_sets_a_flag_and_later_ones_are_second_requests(number: signal.Signals) -> None:
    calls: list[str] = []
    before = signal.getsignal(number)
    with StopRequests(lambda: calls.append("first"), lambda: calls.append("second")) as stop:
        assert not stop.requested
        for _ in range(3):  # at once, as passed on by a shell
            os.kill(os.getpid(), number)
        wait(lambda: calls)
        assert stop.requested
        time.sleep(0.3)
        assert calls == ["first"]
        os.kill(os.getpid(), number)
        wait(lambda: calls == ["first", "second"])
    assert signal.getsignal(number) is before
    assert slurm.asked[0] == number


@pytest.mark.parametrize(("number", "kills"), [(signal.SIGTERM, False), (signal.SIGINT, True)])
def test_under_slurm_only_ctrl_c_is_a_second_request(
    number: signal.Signals, kills: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    slurm.here.cache_clear()
    calls: list[str] = []
    with StopRequests(lambda: calls.append("first"), lambda: calls.append("second")):
        os.kill(os.getpid(), signal.SIGTERM)
        wait(lambda: calls)
        time.sleep(0.3)
        os.kill(os.getpid(), number)
        time.sleep(0.3)
    assert calls == (["first", "second"] if kills else ["first"])


def test_ignored_signals_stay_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequests() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.1)
            assert not stop.requested
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("begun", [False, True])
def test_request_ends_a_start_at_once_and_a_training_when_it_asks(begun: bool, tmp_path: Path) -> None:
    note = tmp_path / folders.NOTE
    if not begun:
        note.touch()

    def start() -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
        assert begun
        return 0

    with StopRequests() as stop:
        assert stop.run(tmp_path, start) == (0 if begun else INTERRUPTED)
        assert stop.requested
        assert stop.run(tmp_path, start) == INTERRUPTED  # asked before it began


def test_requests_count_while_the_main_thread_is_in_c(tmp_path: Path) -> None:
    text = """
import ctypes, os, threading, time
from alexnet_lab.launch import stopping
stopping.SAME_REQUEST_SECONDS = 0.2
with stopping.StopRequests(lambda: print("first", flush=True), lambda: (print("second", flush=True), os._exit(3))):
    print("ready", flush=True)
    libc = ctypes.CDLL(None)
    while True:
        libc.usleep(60_000_000)
"""
    environment = os.environ | {"PYTHONPATH": SOURCE}
    environment.pop("SLURM_JOB_ID", None)
    process = subprocess.Popen([sys.executable, "-c", text], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "first\n"
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "second\n"
    assert process.wait(timeout=20) == 3


def test_forked_child_has_its_own_signals(tmp_path: Path) -> None:
    text = """
import os, signal, time
from alexnet_lab.launch import stopping
with stopping.StopRequests() as stop:
    read_end, write_end = os.pipe()
    if (child := os.fork()) == 0:
        os.write(write_end, b"x")
        time.sleep(60)
    os.read(read_end, 1)
    os.kill(child, signal.SIGTERM)
    _, status = os.waitpid(child, 0)
    time.sleep(0.1)
    print(os.WTERMSIG(status), stop.requested)
"""
    environment = os.environ | {"PYTHONPATH": SOURCE}
    ended = subprocess.run([sys.executable, "-c", text], env=environment, capture_output=True, text=True, timeout=30)
    assert ended.stdout == "15 False\n", ended.stderr
