"""One job of a sweep, as its launcher sees it: its plan, its process, its state."""

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
    """A job's process. Only `wait` reaps it: as long as its number is taken, nobody else's group can have it."""

    asked_to_stop = False

    def poll(self) -> int | None:
        """The exit status once `wait` has fetched it; `send_signal` asks for it, too."""
        return self.returncode

    def has_ended(self) -> bool:
        """Whether it has; it is looked at without being reaped."""
        if self.returncode is None:
            try:
                return machine.has_ended(self)
            except ChildProcessError:  # somebody else has fetched its status: what the job recorded tells
                self.returncode = FAILED
        return True

    def send_signal(self, number: int) -> None:
        """Send a signal; SIGTERM only once, since the job takes a second one for the wish to be killed unsaved."""
        if number == signal.SIGTERM and self.asked_to_stop:
            return
        self.asked_to_stop = self.asked_to_stop or number == signal.SIGTERM
        super().send_signal(number)


@dataclass(eq=False)
class Job:
    """One job, from its plan to its end; without a plan it had finished before."""

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
    """When a job that took too long is killed; times are those of `time.monotonic`."""
    process: Process | None = field(default=None, repr=False)
    slot: Slot | None = None
    question: Question | None = None
    """Where a pruner is asked about it."""
    seen: Seen | None = field(default=None, repr=False)
    """What the table read of its figures last."""

    @property
    def name(self) -> str:
        """The name of its folder, which tells its overrides."""
        return self.folder.name

    @property
    def failure(self) -> Exception | None:
        """What a sweeper is told in place of a value."""
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
    """The last val/top1 of each epoch, from 0, that `metrics.csv` has."""
    rows = read_rows(folder / folders.METRICS)
    return {int(row["epoch"]): row["val/top1"] for row in rows if "val/top1" in row}


def user_error(log: Path) -> str:
    """The last user error in a log, all of its lines; empty where there is none."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    begins = [number for number, line in enumerate(lines) if line.startswith(USER_ERROR_BEGINS)]
    return "\n".join(lines[begins[-1] :]).removeprefix(USER_ERROR_BEGINS) if begins else ""
