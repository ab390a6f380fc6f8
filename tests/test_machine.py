"""Fallbacks for macOS, which has no core affinity, prctl or /proc, and the order of both output streams."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from alexnet_lab import machine
from alexnet_lab.launch import job, naming, running
from alexnet_lab.launch.sweep_job import Process


@pytest.fixture
def macos(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sched_getaffinity", "sched_setaffinity", "waitid"):
        monkeypatch.delattr(os, name)
    read_text = Path.read_text

    def without_proc(path: Path, *more: str, **options: str) -> str:
        if str(path).startswith("/proc"):
            raise FileNotFoundError(path)
        return read_text(path, *more, **options)

    monkeypatch.setattr(Path, "read_text", without_proc)
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())


@pytest.mark.usefixtures("macos")
def test_machine_without_affinity_uses_all_cores() -> None:
    assert machine.cores() == list(range(os.cpu_count() or 1))
    machine.use_cores([0])
    machine.end_with_parent()


@pytest.mark.usefixtures("macos")
def test_ranks_of_torchrun_agree_on_their_agent_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert naming.run_name("now") == f"torchrun-{os.getppid()}"


@pytest.mark.usefixtures("macos")
def test_end_of_a_job_is_noticed_without_waitid() -> None:
    process = Process([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE, text=True)
    assert not process.has_ended()
    process.communicate("x")
    assert process.has_ended()
    assert process.wait() == 0


@pytest.mark.usefixtures("macos")
def test_job_of_a_sweep_starts_without_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "run", lambda plan: 0)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    given = {"checkpoint": None, "folder": str(tmp_path), "settings": {"trainer": {}}, "continues": False, "cores": [0]}
    assert job.run(given) == 0


def test_unbuffered_streams_write_each_line_at_once(tmp_path: Path) -> None:
    code = (
        "import os, sys; from alexnet_lab import machine; machine.print_without_errors()\n"
        "for word in 'abcd': print(word, file=(sys.stderr, sys.stdout)['bd'.count(word)])\n"
        "os._exit(0)"  # writes nothing that was kept back
    )
    with (tmp_path / "printed").open("w") as file:
        subprocess.run([sys.executable, "-u", "-c", code], stdout=file, stderr=file, check=True)
    assert (tmp_path / "printed").read_text().split() == ["a", "b", "c", "d"]
