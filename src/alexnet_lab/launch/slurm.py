"""Runs under Slurm: what it told this process, how the ranks of `srun` find rank 0, and how a job comes back.

SIGTERM (scancel, `scontrol requeue`, preemption) saves and ends: Slurm itself decides whether the job comes back.
SIGUSR1 (`sbatch --signal=USR1@90`) and submitit's SIGUSR2 save and ask for a requeue. A job that came back continues
the run that it had started, see `Slurm.restarted`.

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
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from alexnet_lab import files
from alexnet_lab.errors import UserError

REQUEUE_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2)
MEETING = ".ranks"
MEETING_SECONDS = 120.0
"""How long the ranks wait for rank 0: nodes may start at different times."""

asked: list[int] = []
"""The signals by which this process was asked to stop, which decide whether the job is requeued."""


@dataclass(frozen=True)
class Slurm:
    """What Slurm told a process through `variables`, its environment when it started."""

    variables: Mapping[str, str]

    @property
    def job(self) -> str | None:
        """The number of the job; None outside of Slurm."""
        return self.variables.get("SLURM_JOB_ID")

    @property
    def in_step(self) -> bool:
        """Whether `srun` has started this process as one rank of several."""
        return int(self.variables.get("SLURM_STEP_NUM_TASKS", "1")) > 1

    @property
    def rank(self) -> int:
        """The rank of this process in the step; 0 outside of one."""
        return int(self.variables["SLURM_PROCID"]) if self.in_step else 0

    @property
    def nodes(self) -> int:
        """Nodes of the step, or of the allocation in which it will be; 1 outside of Slurm."""
        return int(self.variables.get("SLURM_STEP_NUM_NODES") or self.variables.get("SLURM_JOB_NUM_NODES") or 1)

    @property
    def tasks_per_node(self) -> int:
        """Ranks on each node of the step; outside of one, the number in `--ntasks-per-node`, or 1.

        Raises:
            UserError: the nodes of the step have different numbers of tasks.
        """
        if not self.in_step:
            return int(self.variables.get("SLURM_NTASKS_PER_NODE") or 1)
        tasks = int(self.variables["SLURM_STEP_NUM_TASKS"])
        if tasks % self.nodes:
            raise UserError(
                f"srun: {tasks} tasks on {self.nodes} nodes; give every node the same number, with --ntasks-per-node"
            )
        return tasks // self.nodes

    @property
    def run_name(self) -> str | None:
        """The name of a run that `srun` starts, the same in all its ranks and after a requeue; None in other cases."""
        step = self.variables.get("SLURM_STEP_ID")
        if self.job is None or step is None or "SLURM_PTY_PORT" in self.variables:  # the last: a shell of srun --pty
            return None
        return f"slurm-{self.job}" if step == "0" else f"slurm-{self.job}.{step}"

    @property
    def restarted(self) -> bool:
        """Whether Slurm has started this job before: after a requeue, a preemption or the failure of a node."""
        return int(self.variables.get("SLURM_RESTART_COUNT") or 0) > 0

    def call_ranks(self, folder: Path) -> dict[str, str]:
        """On rank 0, which owns `folder` now: write where the ranks meet; returns the variables of this rank."""
        one_node = self.nodes == 1
        address = "127.0.0.1" if one_node else self.variables.get("SLURMD_NODENAME") or socket.gethostname()
        meeting = {"MASTER_ADDR": self.variables.get("MASTER_ADDR", address)}
        port = self.variables.get("MASTER_PORT") or str(free_port("127.0.0.1" if one_node else ""))
        meeting["MASTER_PORT"] = port
        files.write(folder / MEETING, json.dumps({"step": self._step, **meeting}))
        return self._rank_variables(meeting)

    def await_call(self, folder: Path, check: Callable[[], None] = lambda: None) -> dict[str, str]:
        """On any other rank: wait until rank 0 owns `folder`; returns the variables of this rank.

        `check` is called while it waits, and may raise.

        Raises:
            UserError: rank 0 does not own it in time; its own message has the reason.
        """
        deadline = time.monotonic() + MEETING_SECONDS
        while time.monotonic() < deadline:
            if (folder / MEETING).exists():
                meeting = json.loads((folder / MEETING).read_text())
                if meeting.pop("step") == self._step:  # the file of an older start may still be there
                    return self._rank_variables(meeting)
            check()
            time.sleep(0.1)
        raise UserError(f"rank {self.rank} waited {MEETING_SECONDS:.0f} s for rank 0 to start the run in {folder}")

    @property
    def _step(self) -> str:
        """One start of one step of one job."""
        names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
        return ".".join(self.variables.get(name, "0") for name in names)

    def _rank_variables(self, meeting: Mapping[str, str]) -> dict[str, str]:
        """The variables that torchrun would set, and the cores of a task: one, or `--cpus-per-task`."""
        own = self.variables
        return {
            **meeting,
            "RANK": own["SLURM_PROCID"],
            "LOCAL_RANK": own["SLURM_LOCALID"],
            "NODE_RANK": own["SLURM_NODEID"],
            "WORLD_SIZE": own["SLURM_STEP_NUM_TASKS"],
            "OMP_NUM_THREADS": own.get("OMP_NUM_THREADS") or own.get("SLURM_CPUS_PER_TASK") or "1",
        }


@cache
def here() -> Slurm:
    """What Slurm told this process; kept, since the variables are removed before training."""
    return Slurm(dict(os.environ))


def requeue() -> None:
    """Put the job back into the queue when a signal has asked for it and this is rank 0; call it when all is saved.

    In a job of submitit its own handler of the signal does that, since it has more to prepare.
    """
    slurm = here()
    wanted = [number for number in asked if number in REQUEUE_SIGNALS]
    if not wanted or slurm.job is None or slurm.rank != 0:
        return
    if "SUBMITIT_EXECUTOR" in slurm.variables and callable(signal.getsignal(wanted[0])):
        signal.raise_signal(wanted[0])
        return
    if shutil.which("scontrol") is None:
        print(f"job {slurm.job} is not requeued: there is no scontrol on this node", file=sys.stderr)
        return
    done = subprocess.run(["scontrol", "requeue", slurm.job], capture_output=True, text=True, env=dict(slurm.variables))
    outcome = "is requeued and will continue" if done.returncode == 0 else f"is not requeued: {done.stderr.strip()}"
    print(f"job {slurm.job} {outcome}", file=sys.stderr)


def free_port(address: str) -> int:
    """A port on which no process listens at `address`; '' is every interface."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port
