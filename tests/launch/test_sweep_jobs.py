"""The processes of a sweep's jobs: how they are watched, asked to stop, and what is said of their ends."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from alexnet_lab.errors import RunInterrupted, UserError
from alexnet_lab.launch import slurm, stopping
from alexnet_lab.launch import sweep as sweeps
from alexnet_lab.launch.planning import Plan
from alexnet_lab.launch.slots import Slot
from alexnet_lab.launch.sweep import Sweep
from alexnet_lab.launch.sweep_job import Job, Process

COUNTS = """
import os, signal, time
signal.signal(signal.SIGTERM, lambda *_: os.write(1, b"asked\\n"))
print("ready", flush=True)
while True:
    time.sleep(0.01)
"""


SAVES = """
import signal, sys, time
folder = sys.argv[1]
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(time.monotonic()))
open(folder + "/ready", "w")
while not asked or time.monotonic() < asked[0] + 1.5:
    time.sleep(0.01)
open(folder + "/asked", "w").write(str(len(asked)))
sys.exit(3)
"""


def sweep_of(folder: Path, program: str, monkeypatch: pytest.MonkeyPatch, jobs_at_once: int = 1) -> Sweep:
    """A sweep whose jobs run `program` in place of a training."""
    sweep = Sweep(folder, jobs_at_once, None, None, fail_fast=False)

    def start(one: Job, slot: Slot) -> Process:
        one.folder.mkdir()
        one.process = Process([sys.executable, "-c", program, str(one.folder)], start_new_session=True, text=True)
        one.state, one.started = "running", time.monotonic()
        return one.process

    monkeypatch.setattr(sweep, "_start", start)
    monkeypatch.setattr(sweeps, "unfinished", [])
    return sweep


def job_of(sweep: Sweep, name: str, *overrides: str) -> Job:
    folder = sweep.folder / name
    settings = {"trainer": {"accelerator": "cpu", "devices": 1, "max_steps": -1, "max_epochs": 1}}
    return sweep.job(folder, overrides, lambda: Plan(folder, settings))


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
    stopping.send([process], signal.SIGTERM)
    process.terminate()
    assert process.has_ended()
    os.killpg(process.pid, 0)  # its number is still taken
    assert process.wait() == 7
    assert process.has_ended()
    stopping.send([process], signal.SIGKILL)


def test_process_whose_status_somebody_else_fetched_has_ended() -> None:
    process = start("")
    os.waitpid(process.pid, 0)
    assert process.has_ended()
    assert process.wait() == 1


def test_process_is_asked_to_stop_once_however_often_it_is_called_off() -> None:
    process = start(COUNTS)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    stopping.send([process], signal.SIGTERM)
    assert process.stdout.readline() == "asked\n"
    process.terminate()
    time.sleep(0.1)
    stopping.send([process], signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert process.stdout.read() == ""


def test_one_request_reaches_every_running_job_once_and_starts_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(slurm, "asked", [])
    sweep = sweep_of(tmp_path / "sweep", SAVES, monkeypatch, jobs_at_once=2)
    jobs = [job_of(sweep, f"seed={seed}", f"seed={seed}") for seed in range(3)]

    def ask() -> None:
        wait(lambda: len(list(sweep.folder.glob("*/ready"))) == 2)
        os.kill(os.getpid(), signal.SIGINT)

    asking = threading.Thread(target=ask)
    asking.start()
    with pytest.raises(RunInterrupted):
        sweep.run(jobs)
    asking.join()
    assert [job.state for job in jobs] == ["interrupted", "interrupted", "skipped"]
    assert [(job.folder / "asked").read_text() for job in jobs[:2]] == ["1", "1"]
    assert not jobs[2].folder.exists()


def test_jobs_that_max_time_stopped_are_interrupted_and_so_is_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    record = '{"status": "interrupted", "reason": "max_time", "error": null}'
    program = f"import sys; open(sys.argv[1] + '/result.json', 'w').write({record!r}); sys.exit(3)"
    sweep = sweep_of(tmp_path / "sweep", program, monkeypatch)
    jobs = [job_of(sweep, f"seed={seed}", f"seed={seed}") for seed in range(2)]
    assert sweeps.exit_status() == 0
    sweep.run(jobs)
    assert [(job.state, job.reason) for job in jobs] == [("interrupted", "trainer.max_time is over")] * 2
    assert sweeps.exit_status() == 3
    jobs[0].state = "failed"
    assert sweeps.exit_status() == 1


def test_folder_belongs_to_one_job_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path / "sweep", SAVES, monkeypatch)
    first = job_of(sweep, "one", "seed=1", "model=lenet")
    assert job_of(sweep, "one", "model=lenet", "seed=1") is first
    with pytest.raises(UserError, match=r"the folder one: \[seed=1 model=lenet\] and \[seed=2 model=lenet\]"):
        job_of(sweep, "one", "seed=2", "model=lenet")


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("error: an older start\nstarted\nerror: no such data: x\n  data=a|b\n", "no such data: x\n  data=a|b"),
        ("", "ended with status 2"),
        ("usage: job\n", "ended with status 2"),
    ],
)
def test_user_error_is_told_with_all_its_lines(
    log: str, reason: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = f"import sys; open(sys.argv[1] + '/job.log', 'w').write({log!r}); sys.exit(2)"
    sweep = sweep_of(tmp_path / "sweep", program, monkeypatch)
    one = job_of(sweep, "seed=0", "seed=0")
    sweep.run([one])
    assert (one.state, one.reason) == ("failed", reason)
