"""A rank whose main thread makes no progress ends with the place; one that a debugger stopped does not."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alexnet_lab.launch import watchdog

SOURCE = str(Path(watchdog.__file__).parents[2])
WATCHED = """
import os, signal, sys, time
from alexnet_lab.launch import watchdog
watchdog.LOOK_SECONDS, watchdog.BACKSTOP_SECONDS = 0.05, 1.0
def end(stack):
    print(stack, flush=True)
    os._exit(1)
def wait_for_nothing(seconds=60):
    time.sleep(seconds)
log = open("log", "w")
dog = watchdog.Watchdog(0.5, end, log)
dog.start()
"""


def run(text: str, folder: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": SOURCE}
    command = [sys.executable, "-c", WATCHED + text]
    return subprocess.run(
        command, cwd=folder, env=environment, input=stdin, capture_output=True, text=True, timeout=60, check=False
    )


def test_main_thread_that_waits_too_long_is_ended_with_its_place(tmp_path: Path) -> None:
    text = """
time.sleep(1)  # before the first progress nothing is too long
for _ in range(10):
    dog.progress()
    time.sleep(0.1)
print("now", flush=True)
wait_for_nothing()
"""
    ended = run(text, tmp_path)
    assert ended.returncode == 1, ended.stderr
    assert ended.stdout.startswith("now\n")
    assert "wait_for_nothing" in ended.stdout


def test_process_that_holds_the_interpreter_is_ended_and_its_stacks_are_in_the_log(tmp_path: Path) -> None:
    # PyDLL keeps the lock of the interpreter while the function sleeps.
    ended = run("dog.progress(); time.sleep(0.3)\nimport ctypes; ctypes.PyDLL(None).sleep(30)", tmp_path)
    assert ended.returncode == 1
    assert "Timeout (0:00:01.5" in (tmp_path / "log").read_text()


def test_main_thread_in_a_debugger_may_wait(tmp_path: Path) -> None:
    text = "dog.progress()\nimport pdb; pdb.set_trace()\ndog.stop()\nprint('on')"
    ended = run(text, tmp_path, stdin="p __import__('time').sleep(1.5)\nc\n")
    assert ended.returncode == 0, ended.stdout
    assert ended.stdout.endswith("on\n")


@pytest.mark.skipif(sys.version_info < (3, 12), reason="needs sys.monitoring")
def test_debugger_of_sys_monitoring_is_seen(tmp_path: Path) -> None:
    text = "sys.monitoring.use_tool_id(sys.monitoring.DEBUGGER_ID, 'x'); dog.progress(); time.sleep(1.5); dog.stop()"
    assert run(text, tmp_path).returncode == 0


def test_time_for_which_the_process_was_stopped_does_not_count(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": SOURCE}
    text = WATCHED.replace("BACKSTOP_SECONDS = 0.05, 1.0", "BACKSTOP_SECONDS = 0.05, 30.0")
    text += "dog.progress(); print('go', flush=True); time.sleep(0.2); dog.progress(); time.sleep(0.3); dog.stop()"
    command = [sys.executable, "-c", text]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGSTOP)
    time.sleep(1.5)
    process.send_signal(signal.SIGCONT)
    assert process.wait(timeout=20) == 0


def test_without_a_limit_no_thread_is_started() -> None:
    dog = watchdog.Watchdog(None, print)
    dog.start()
    dog.stop()
    assert not dog._thread.is_alive()
