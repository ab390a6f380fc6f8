"""What a process makes of the variables that Slurm sets, and of signals, without a Slurm."""

import os
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from alexnet_lab.errors import UserError
from alexnet_lab.launch import slurm

STEP = {"SLURM_JOB_ID": "12", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "6", "SLURM_STEP_NUM_NODES": "2"}
RANK = {"SLURM_PROCID": "4", "SLURM_LOCALID": "1", "SLURM_NODEID": "1"}
FIRST = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURMD_NODENAME": "node07"}
SetVariables = Callable[[dict[str, str]], None]


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> Iterator[SetVariables]:
    """Set these variables of Slurm's and no others."""

    def only(wanted: dict[str, str]) -> None:
        for name in list(os.environ):
            if name.startswith(("SLURM", "SUBMITIT", "MASTER_", "OMP_")):
                monkeypatch.delenv(name)
        for name, value in wanted.items():
            monkeypatch.setenv(name, value)
        slurm.here.cache_clear()

    only({})
    yield only
    slurm.here.cache_clear()


@pytest.fixture
def scontrol(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A stand-in for Slurm's command; the file has the arguments of its calls."""
    calls = tmp_path / "calls"
    program = tmp_path / "bin" / "scontrol"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(slurm, "asked", [])
    return calls


def test_nodes_and_tasks_are_those_of_the_step(variables: SetVariables) -> None:
    assert (slurm.here().nodes, slurm.here().tasks_per_node, slurm.here().in_step) == (1, 1, False)
    variables({"SLURM_JOB_ID": "12", "SLURM_JOB_NUM_NODES": "4", "SLURM_NTASKS_PER_NODE": "8"})
    assert (slurm.here().nodes, slurm.here().tasks_per_node, slurm.here().in_step) == (4, 8, False)
    variables(STEP | {"SLURM_JOB_NUM_NODES": "4", "SLURM_NTASKS_PER_NODE": "8"})
    assert (slurm.here().nodes, slurm.here().tasks_per_node, slurm.here().in_step) == (2, 3, True)
    variables(STEP | {"SLURM_STEP_NUM_TASKS": "5"})
    with pytest.raises(UserError, match="5 tasks on 2 nodes"):
        _ = slurm.here().tasks_per_node


def test_run_is_named_after_job_and_step_but_not_after_a_shell(variables: SetVariables) -> None:
    variables(STEP)
    assert slurm.here().run_name == "slurm-12"
    variables(STEP | {"SLURM_STEP_ID": "1"})
    assert slurm.here().run_name == "slurm-12.1"
    variables(STEP | {"SLURM_PTY_PORT": "4711"})
    assert slurm.here().run_name is None


def test_ranks_meet_where_rank_0_of_the_same_start_says(
    variables: SetVariables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "MEETING_SECONDS", 0.3)
    variables(STEP | FIRST)
    first = slurm.here().call_ranks(tmp_path)
    variables(STEP | RANK)
    other = slurm.here().await_call(tmp_path)
    assert first["MASTER_ADDR"] == other["MASTER_ADDR"] == "node07"
    assert first["MASTER_PORT"] == other["MASTER_PORT"]
    assert (first["RANK"], first["LOCAL_RANK"], first["NODE_RANK"], first["WORLD_SIZE"]) == ("0", "0", "0", "6")
    assert (other["RANK"], other["LOCAL_RANK"], other["NODE_RANK"], other["WORLD_SIZE"]) == ("4", "1", "1", "6")
    assert other["OMP_NUM_THREADS"] == "1"
    variables(STEP | RANK | {"SLURM_RESTART_COUNT": "1"})  # what the first start has left does not count
    with pytest.raises(UserError, match="rank 4 waited"):
        slurm.here().await_call(tmp_path)


@pytest.mark.parametrize(
    ("signals", "more", "calls"),
    [
        ([signal.SIGUSR1], {}, "requeue 12\n"),
        ([signal.SIGTERM], {}, None),
        ([signal.SIGUSR1, signal.SIGTERM], {}, "requeue 12\n"),
        ([signal.SIGUSR1], STEP | RANK, None),
        ([signal.SIGUSR1], STEP | FIRST, "requeue 12\n"),
    ],
)
def test_only_rank_0_requeues_and_only_when_the_signal_asks_for_it(
    variables: SetVariables, scontrol: Path, signals: list[int], more: dict[str, str], calls: str | None
) -> None:
    variables({"SLURM_JOB_ID": "12"} | more)
    slurm.asked.extend(signals)
    slurm.requeue()
    assert (scontrol.read_text() if scontrol.exists() else None) == calls


def test_nothing_is_requeued_outside_of_slurm(variables: SetVariables, scontrol: Path) -> None:
    slurm.asked.append(signal.SIGUSR1)
    slurm.requeue()
    assert not scontrol.exists()


def test_submitit_requeues_its_own_jobs(
    variables: SetVariables, scontrol: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables({"SLURM_JOB_ID": "12", "SUBMITIT_EXECUTOR": "slurm"})
    seen: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: seen.append(number))
    try:
        slurm.asked.append(signal.SIGUSR2)
        slurm.requeue()
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert seen == [signal.SIGUSR2]
    assert not scontrol.exists()
