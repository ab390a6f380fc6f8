"""One job of a sweep in its launcher: plan, process, state."""

import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from alexnet_lab import machine
from alexnet_lab.callbacks.question import Question
from alexnet_lab.errors import FAILED, RunFailed
from alexnet_lab.launch import planning
from alexnet_lab.launch.slots import Slot
from alexnet_lab.launch.sweep_view import Seen
from alexnet_lab.runs import folders, result_file
from alexnet_lab.runs.metric_rows import read_rows

USER_ERROR_BEGINS = "error: "

State = Literal["waiting", "running", "finished", "pruned", "failed", "interrupted", "skipped"]


class Process(subprocess.Popen[str]):
    """A job's process. Only `wait` reaps it, so that its number, also that of its group, is not reused before."""

    asked_to_stop = False

    def poll(self) -> int | None:
        """The exit status after `wait`; `send_signal` calls this, too."""
        return self.returncode

    def has_ended(self) -> bool:
        """Whether the process has ended; it is not reaped."""
        if self.returncode is None:
            try:
                return machine.has_ended(self)
            except ChildProcessError:  # something else has reaped it; the job's own record has the status
                self.returncode = FAILED
        return True

    def send_signal(self, number: int) -> None:
        """Send a signal; SIGTERM only once, since a second SIGTERM kills the job without saving."""
        if number == signal.SIGTERM and self.asked_to_stop:
            return
        self.asked_to_stop = self.asked_to_stop or number == signal.SIGTERM
        super().send_signal(number)


@dataclass(eq=False)
class Job:
    """One job, from its plan to its end; without a plan it has finished in an earlier start."""

    folder: Path
    overrides: Sequence[str]
    plan: planning.Plan | None
    gpus: int
    state: State = "waiting"
    reason: str = ""
    """Why it failed, in a few lines."""
    steps_before: float = 0.0
    """Optimizer steps that an earlier start has done."""
    started: float = 0.0
    ended: float = 0.0
    kill_at: float | None = None
    """When a job that took too long is killed, in s of `time.monotonic`."""
    process: Process | None = field(default=None, repr=False)
    slot: Slot | None = None
    question: Question | None = None
    """Where a pruner is asked about it."""
    seen: Seen | None = field(default=None, repr=False)
    """The metrics that the table has read last."""

    @property
    def name(self) -> str:
        """The name of its folder, which contains its overrides."""
        return self.folder.name

    @property
    def failure(self) -> Exception | None:
        """The exception that a sweeper gets in place of a value."""
        return None if self.state in result_file.ENDED_WELL else RunFailed(f"{self.name} {self.state}: {self.reason}")

    @property
    def objective(self) -> float | None:
        """The best val/top1."""
        return planning.objective(self.folder)


@dataclass(frozen=True)
class Group:
    """Jobs that a search launches together, as trials."""

    first: int
    """The number of the first trial."""
    shared: Sequence[str]
    """Overrides that all trials of the search have."""
    prunes: Callable[[Job, Mapping[int, float]], bool] | None
    """Whether a trial ends now, given its val/top1 by epoch; None where trials run to their end."""


def ended_state(folder: Path) -> State:
    """The state of a job that ended well in an earlier start."""
    status = (result_file.read_result(folder / folders.RESULT) or {}).get("status")
    return "pruned" if status == "pruned" else "finished"


def top1_by_epoch(folder: Path) -> dict[int, float]:
    """The last val/top1 of each epoch, from 0, in `metrics.csv`."""
    rows = read_rows(folder / folders.METRICS)
    return {int(row["epoch"]): row["val/top1"] for row in rows if "val/top1" in row}


def user_error(log: Path) -> str:
    """All lines of the last user error in a log; empty if there is none."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    begins = [number for number, line in enumerate(lines) if line.startswith(USER_ERROR_BEGINS)]
    return "\n".join(lines[begins[-1] :]).removeprefix(USER_ERROR_BEGINS) if begins else ""
