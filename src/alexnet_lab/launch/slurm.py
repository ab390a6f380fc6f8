"""Runs under Slurm: which rank `srun` has made of this process, how ranks find rank 0, and how a job comes back.

Two signals, two wishes: SIGTERM (scancel, `scontrol requeue`, preemption) saves and ends, for Slurm itself decides
whether the job comes back; SIGUSR1 (`sbatch --signal=USR1@90`) and submitit's SIGUSR2 save and ask for a requeue.
A job that came back goes on with the run that it had begun, see `restarted`.

Imports nothing heavy.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from alexnet_lab import files
from alexnet_lab.errors import UserError

REQUEUE_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2)
CALL = ".ranks"
CALL_SECONDS = 120.0
"""How long the ranks wait for rank 0: nodes may start at different times."""

asked: list[int] = []
"""The signals by which this process was asked to stop: whether to requeue follows from them."""


def in_step() -> bool:
    """Whether `srun` has started this process as one rank of several."""
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1


def rank() -> int:
    """This process's rank among those of the step; 0 outside of one."""
    return int(os.environ["SLURM_PROCID"]) if in_step() else 0


def nodes() -> int:
    """Nodes of the step, or of the allocation that it will be a part of; 1 outside of Slurm."""
    environment = os.environ
    return int(environment.get("SLURM_STEP_NUM_NODES") or environment.get("SLURM_JOB_NUM_NODES") or 1)


def tasks_per_node() -> int:
    """Ranks on each node of the step; outside of one, what `--ntasks-per-node` has asked for, or 1.

    Raises:
        UserError: the step's nodes have different numbers of tasks.
    """
    if not in_step():
        return int(os.environ.get("SLURM_NTASKS_PER_NODE") or 1)
    tasks = int(os.environ["SLURM_STEP_NUM_TASKS"])
    if tasks % nodes():
        raise UserError(f"srun: {tasks} tasks on {nodes()} nodes; give every node as many, with --ntasks-per-node")
    return tasks // nodes()


def name() -> str | None:
    """The name of a run that `srun` starts, the same in all its ranks and after a requeue; None in other cases."""
    job, step = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_STEP_ID")
    if job is None or step is None or "SLURM_PTY_PORT" in os.environ:  # the last is a shell's, srun --pty
        return None
    return f"slurm-{job}" if step == "0" else f"slurm-{job}.{step}"


def restarted() -> bool:
    """Whether Slurm has started this job before: after a requeue, a preemption or the failure of a node."""
    return int(os.environ.get("SLURM_RESTART_COUNT") or 0) > 0


def call_ranks(folder: Path) -> dict[str, str]:
    """On rank 0, which owns the folder now: tell the others where to meet; returns the variables of this rank."""
    alone = nodes() == 1
    address = "127.0.0.1" if alone else os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    meeting = {"MASTER_ADDR": os.environ.get("MASTER_ADDR", address)}
    meeting["MASTER_PORT"] = os.environ.get("MASTER_PORT") or str(free_port("127.0.0.1" if alone else ""))
    files.write(folder / CALL, json.dumps({"step": _step(), **meeting}))
    return _variables(meeting)


def await_call(folder: Path) -> dict[str, str]:
    """On any other rank: wait until rank 0 owns the folder; returns the variables of this rank.

    Raises:
        UserError: rank 0 does not say so in time; its own message tells why.
    """
    deadline = time.monotonic() + CALL_SECONDS
    while time.monotonic() < deadline:
        if (folder / CALL).exists():
            meeting = json.loads((folder / CALL).read_text())
            if meeting.pop("step") == _step():  # an older start may have left its own
                return _variables(meeting)
        time.sleep(0.1)
    raise UserError(f"rank {rank()} waited {CALL_SECONDS:.0f} s for rank 0 to start the run in {folder}")


def requeue() -> None:
    """Put the job back into the queue when a signal has asked for it and this is rank 0; call it with all saved.

    Inside a job of submitit's its own handler of the signal does that, since it has more to prepare.
    """
    wanted = [number for number in asked if number in REQUEUE_SIGNALS]
    if not wanted or "SLURM_JOB_ID" not in os.environ or rank() != 0:
        return
    if "SUBMITIT_EXECUTOR" in os.environ and callable(signal.getsignal(wanted[0])):
        signal.raise_signal(wanted[0])
        return
    job = os.environ["SLURM_JOB_ID"]
    if shutil.which("scontrol") is None:
        print(f"job {job} is not requeued: there is no scontrol on this node", file=sys.stderr)
        return
    done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
    told = "is requeued and will go on" if done.returncode == 0 else f"is not requeued: {done.stderr.strip()}"
    print(f"job {job} {told}", file=sys.stderr)


def free_port(address: str) -> int:
    """A port that nobody listens on at `address`; '' is every interface."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


def _step() -> str:
    """One start of one step of one job."""
    return ".".join(os.environ.get(name, "0") for name in ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT"))


def _variables(meeting: Mapping[str, str]) -> dict[str, str]:
    """What torchrun would set, and the cores of a task: one unless `--cpus-per-task` says more."""
    environment = os.environ
    return {
        **meeting,
        "RANK": environment["SLURM_PROCID"],
        "LOCAL_RANK": environment["SLURM_LOCALID"],
        "NODE_RANK": environment["SLURM_NODEID"],
        "WORLD_SIZE": environment["SLURM_STEP_NUM_TASKS"],
        "OMP_NUM_THREADS": environment.get("OMP_NUM_THREADS") or environment.get("SLURM_CPUS_PER_TASK") or "1",
    }
