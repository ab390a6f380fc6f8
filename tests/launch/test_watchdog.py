"""A rank that no longer answers is ended with the others, and the record says so. Ranks are tiny real programs."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alexnet_lab.launch import supervisor, watchdog
from alexnet_lab.launch.supervisor import supervise

SOURCE = str(Path(supervisor.__file__).parents[2])
BEATING = """
import os, signal, sys, time
from alexnet_lab.launch import watchdog
watchdog.BEAT_SECONDS = 0.1
rank = int(os.environ["RANK"])
pulse = watchdog.Pulse(None, print)
pulse.start()
"""


def program(text: str) -> list[str]:
    return [sys.executable, "-c", BEATING + text]


def error(folder: Path) -> str:
    content = json.loads((folder / "result.json").read_text())
    assert content["status"] == "failed"
    text: str = content["error"]
    return text


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "SILENT_SECONDS", 1.0)


@pytest.mark.parametrize("text", ["", "pulse.progress()\n"], ids=["while it starts", "in training"])
def test_stopped_rank_ends_the_run_and_is_named(text: str, tmp_path: Path) -> None:
    started = time.monotonic()
    stop = "os.kill(os.getpid(), signal.SIGSTOP) if rank == 1 else time.sleep(60)"
    assert supervise(program(f"{text}{stop}"), tmp_path, ranks=2) == -9
    assert time.monotonic() - started < 15
    assert error(tmp_path) == "rank 1 did not answer for 1 s and was killed"


def test_the_reason_is_the_rank_that_was_lost_and_not_what_others_said_of_it(tmp_path: Path) -> None:
    said = f'open({str(tmp_path / "result.json")!r}, \'w\').write(\'{{"status": "failed", "error": "peer gone"}}\')'
    lost = f"os.kill(os.getpid(), signal.SIGKILL) if rank == 1 else (time.sleep(1), {said}, sys.exit(1))"
    assert supervise(program(lost), tmp_path, ranks=2) == -9
    assert error(tmp_path) == "rank 1 was killed by SIGKILL (out of memory?)"


def test_interpreter_that_is_stuck_in_a_library_is_noticed_in_training_only(tmp_path: Path) -> None:
    # PyDLL keeps the interpreter's lock while the function sleeps.
    stuck = "import ctypes; ctypes.PyDLL(None).sleep"
    assert supervise(program(f"{stuck}(2)"), tmp_path, ranks=1) == 0
    assert supervise(program(f"pulse.progress(); time.sleep(0.9); {stuck}(4)"), tmp_path, ranks=1) == -9
    assert "did not answer" in error(tmp_path)


def test_rank_that_beats_may_take_its_time(tmp_path: Path) -> None:
    assert supervise(program("pulse.progress(); time.sleep(2)"), tmp_path, ranks=1) == 0


def test_process_may_take_its_time_to_end(tmp_path: Path) -> None:
    slow = "import ctypes; pulse.progress(); time.sleep(0.5); pulse.leave(); ctypes.PyDLL(None).sleep(2)"
    assert supervise(program(slow), tmp_path, ranks=1) == 0


def test_main_thread_that_waits_too_long_is_told_with_its_place() -> None:
    waiting = """
import os, time
from alexnet_lab.launch import watchdog
watchdog.BEAT_SECONDS = 0.1
def end(stack):
    print(stack, flush=True)
    os._exit(1)
def wait_for_nothing():
    time.sleep(60)
pulse = watchdog.Pulse(0.5, end)
pulse.start()
time.sleep(1)  # before the first progress nothing is too long
for _ in range(10):
    pulse.progress()
    time.sleep(0.1)
print("now", flush=True)
wait_for_nothing()
"""
    environment = os.environ | {"PYTHONPATH": SOURCE}
    environment.pop(watchdog.PIPE, None)
    ended = subprocess.run([sys.executable, "-c", waiting], env=environment, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 1, ended.stderr
    assert ended.stdout.startswith("now\n")
    assert "wait_for_nothing" in ended.stdout
