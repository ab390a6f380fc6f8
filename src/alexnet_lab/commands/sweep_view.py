"""What a sweep shows: a live table on a terminal, a line per job that starts or ends elsewhere; at its end a table.

Imports nothing heavy before it shows something.
"""

import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alexnet_lab.commands import folders
from alexnet_lab.tracking.metric_rows import read_rows

if TYPE_CHECKING:
    from alexnet_lab.commands.sweep import Job

REFRESH_SECONDS = 1.0
COLUMNS = ("job", "overrides", "state", "epoch", "val/top1", "time", "left")
COLORS = {"running": "yellow", "finished": "green", "failed": "red", "interrupted": "magenta"}


class View:
    """Shows `jobs`; on a terminal the table is drawn anew each second."""

    def __init__(self, folder: Path, jobs: "Sequence[Job]") -> None:
        self._folder = folder
        self._jobs = jobs
        self._states = {job.name: "waiting" for job in jobs}
        self._drawn_at = 0.0
        self._live: Any = None
        print(f"sweep {folder.name}: {len(jobs)} jobs in {folder}", flush=True)
        if sys.stdout.isatty():
            from rich.live import Live

            self._live = Live(auto_refresh=False, transient=True, vertical_overflow="ellipsis")
            self._live.start()

    def show(self) -> None:
        """Bring what is shown up to date."""
        if self._live is None:
            self._say_changes()
        elif time.monotonic() - self._drawn_at > REFRESH_SECONDS:
            self._drawn_at = time.monotonic()
            self._live.update(table(self._folder, self._jobs), refresh=True)

    def close(self) -> None:
        """Show how all jobs ended, and why those failed that did."""
        from rich.console import Console

        if self._live is None:
            self._say_changes()
        else:
            self._live.stop()
        console = Console(width=None if sys.stdout.isatty() else 160)
        console.print(table(self._folder, self._jobs))
        for job in self._jobs:
            if job.state == "failed":
                console.print(f"{job.name}: {job.reason}", markup=False, highlight=False, soft_wrap=True)
                console.print(f"  {job.folder}", markup=False, highlight=False, soft_wrap=True)

    def _say_changes(self) -> None:
        for number, (job, label) in enumerate(zip(self._jobs, labels(self._jobs), strict=True), 1):
            if job.state != self._states[job.name]:
                self._states[job.name] = job.state
                print(f"[{number}/{len(self._jobs)}] {label} {job.state}", flush=True)


def table(folder: Path, jobs: "Sequence[Job]") -> Any:
    """A rich table with a row per job."""
    from rich.table import Table
    from rich.text import Text

    done = sum(job.state not in ("waiting", "running") for job in jobs)
    found = Table(title=f"sweep {folder.name}: {done} of {len(jobs)} jobs done", title_justify="left")
    for name in COLUMNS:
        found.add_column(name, overflow="fold", no_wrap=name != "overrides")
    for number, (job, label) in enumerate(zip(jobs, labels(jobs), strict=True), 1):
        head = job.name.partition(",")[0]
        color = COLORS.get(job.state)
        state = f"[{color}]{job.state}[/]" if color else job.state
        found.add_row(str(number) if "=" in head else head, Text(label), state, *progress(job))
    return found


def labels(jobs: "Sequence[Job]") -> list[str]:
    """What tells each job from the others: its overrides but for those that all share."""
    common = set(jobs[0].overrides).intersection(*(job.overrides for job in jobs)) if len(jobs) > 1 else set()
    return [" ".join(text for text in job.overrides if text not in common) or job.name for job in jobs]


def progress(job: "Job") -> tuple[str, ...]:
    """The last cells of `COLUMNS`, from the epoch on; empty where nothing is known yet."""
    rows: list[dict[str, float]] = []
    with suppress(OSError, ValueError):  # it is being written
        rows = read_rows(job.folder / folders.METRICS)
    epochs = [entry["epoch"] for entry in rows if "epoch" in entry]
    best = max((entry["val/top1"] for entry in rows if "val/top1" in entry), default=None)
    spent = (job.ended or time.monotonic()) - job.started if job.started else None
    left = time_left(job, rows, spent) if job.state == "running" and spent else None
    return (
        f"{int(max(epochs)) + 1}" if epochs else "",
        "" if best is None else f"{best:.4f}",
        _clock(spent),
        _clock(left),
    )


def time_left(job: "Job", rows: Sequence[dict[str, float]], spent: float) -> float | None:
    """Seconds until the job's last step at its rate so far; None as long as the length of an epoch is not known."""
    trainer = job.plan.settings["trainer"] if job.plan else {}
    steps = max((entry["step"] for entry in rows if "step" in entry), default=0.0)
    total = trainer.get("max_steps") or -1
    if total < 0:
        per_epoch = [entry["step"] / (entry["epoch"] + 1) for entry in rows if "train/loss" in entry]
        total = per_epoch[-1] * (trainer.get("max_epochs") or 0) if per_epoch else -1
    done = steps - job.steps_before
    return spent / done * (total - steps) if total >= steps and done > 0 else None


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
