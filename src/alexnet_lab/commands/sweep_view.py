"""What a sweep shows while it runs: a line per job that starts or ends."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alexnet_lab.commands.sweep import Job


class Lines:
    """A line per change of a job's state, for logs and pipes."""

    def __init__(self, folder: Path, jobs: "Sequence[Job]") -> None:
        self._jobs = jobs
        self._states = {job.name: "waiting" for job in jobs}
        print(f"sweep {folder.name}: {len(jobs)} jobs in {folder}")

    def show(self) -> None:
        """Say what has changed since the last call."""
        for number, job in enumerate(self._jobs, 1):
            if job.state != self._states[job.name]:
                self._states[job.name] = job.state
                print(f"[{number}/{len(self._jobs)}] {job.name} {job.state}{_more(job)}", flush=True)

    def close(self) -> None:
        """Say what has changed last."""
        self.show()


def _more(job: "Job") -> str:
    if job.reason:
        return f": {job.reason}"
    if job.state != "finished":
        return ""
    best = f" val/top1 {job.objective:.4f}" if job.objective is not None else ""
    return f"{best} {job.ended - job.started:.1f} s" if job.plan else f"{best} (before)"


def view_of(folder: Path, jobs: "Sequence[Job]") -> Lines:
    """The view that fits what standard output is."""
    return Lines(folder, jobs)
