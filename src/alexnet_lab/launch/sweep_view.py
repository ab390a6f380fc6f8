"""Shows a sweep: a live table on a terminal, elsewhere lines about its jobs; at the end a table.

Imports nothing heavy until it shows something.
"""

import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alexnet_lab.callbacks.pace import clock
from alexnet_lab.launch import ending
from alexnet_lab.runs import folders
from alexnet_lab.runs.metric_rows import best_metrics, read_rows

if TYPE_CHECKING:
    from alexnet_lab.launch.sweep_job import Group, Job, State

REFRESH_SECONDS = 1.0
LINE_SECONDS = 60.0
COLUMNS = ("job", "overrides", "state", "epoch", "val/top1", "time", "left")
OTHER_STATES: tuple["State", ...] = ("pruned", "failed", "interrupted", "skipped", "running", "waiting")
COLORS = {"running": "yellow", "finished": "green", "pruned": "cyan", "failed": "red", "interrupted": "magenta"}


class View:
    """Shows `jobs`: on a terminal a table that is drawn each second; elsewhere a line when a job starts or ends, and
    one a minute for each running job. For the `group` of a search, the search prints the final table."""

    def __init__(self, folder: Path, jobs: "Sequence[Job]", group: "Group | None" = None) -> None:
        self._folder = folder
        self._jobs = jobs
        self._group = group
        self._states = {job.name: "waiting" for job in jobs}
        self._drawn_at = 0.0
        self._said_at = time.monotonic()
        self._live: Any = None
        if group is None:
            print(f"sweep {folder.name}: {len(jobs)} jobs in {folder}", flush=True)
        if sys.stdout.isatty():
            from rich.live import Live

            self._live = Live(auto_refresh=False, transient=True, vertical_overflow="ellipsis")
            self._live.start()

    def show(self) -> None:
        """Update the display."""
        if self._live is None:
            self._say_changes()
            self._say_progress()
        elif time.monotonic() - self._drawn_at > REFRESH_SECONDS:
            self._drawn_at = time.monotonic()
            self._live.update(table(self._folder, self._jobs), refresh=True)

    def close(self) -> None:
        """Show how all jobs ended, and each reason of a failure once, with its jobs."""
        from rich.console import Console

        if self._live is None:
            self._say_changes()
        else:
            self._live.stop()
        console = Console(width=None if sys.stdout.isatty() else 160)
        if self._group is None:
            console.print(table(self._folder, self._jobs))
        failed = [job for job in self._jobs if job.state == "failed"]
        for reason in dict.fromkeys(job.reason for job in failed):
            jobs = [job for job in failed if job.reason == reason]
            names = ", ".join(job.name for job in jobs)
            console.print(f"{names}: {reason}", markup=False, highlight=False, soft_wrap=True)
            for job in jobs:
                kept = (job.folder / folders.CONFIG).exists()
                hint = ending.go_on(job.folder) if kept else job.folder
                console.print(f"  {hint}", markup=False, highlight=False, soft_wrap=True)

    def _say_changes(self) -> None:
        for head, job in self._heads():
            if job.state != self._states[job.name]:
                self._states[job.name] = job.state
                print(f"{head} {job.state}", flush=True)

    def _say_progress(self) -> None:
        if time.monotonic() - self._said_at < LINE_SECONDS:
            return
        self._said_at = time.monotonic()
        for head, job in self._heads():
            if job.state == "running":
                epoch, best, spent, left = progress(job)
                known = {"epoch ": epoch, "val/top1 ": best, "running for ": spent}
                parts = [name + text for name, text in known.items() if text] + [f"{left} left"] * bool(left)
                print("  ".join([head, *parts]), flush=True)

    def _heads(self) -> "Iterable[tuple[str, Job]]":
        shared = self._group.shared if self._group else ()
        for number, (job, label) in enumerate(zip(self._jobs, labels(self._jobs, shared), strict=True)):
            place = f"trial {self._group.first + number}:" if self._group else f"[{number + 1}/{len(self._jobs)}]"
            yield f"{place} {label}", job


def table(folder: Path, jobs: "Sequence[Job]") -> Any:
    """A rich table with a row per job."""
    from rich.table import Table
    from rich.text import Text

    found = Table(title=f"sweep {folder.name}: {counts(jobs)}", title_justify="left")
    for name in COLUMNS:
        found.add_column(name, overflow="fold", no_wrap=name != "overrides")
    for number, (job, label) in enumerate(zip(jobs, labels(jobs), strict=True), 1):
        head = job.name.partition(",")[0]
        color = COLORS.get(job.state)
        state = f"[{color}]{job.state}[/]" if color else job.state
        found.add_row(str(number) if "=" in head else head, Text(label), state, *progress(job))
    return found


def counts(jobs: "Sequence[Job]") -> str:
    """`1 of 3 jobs finished, 2 failed`."""
    states = Counter(job.state for job in jobs)
    others = [f", {states[state]} {state}" for state in OTHER_STATES if states[state]]
    return f"{states['finished']} of {len(jobs)} jobs finished{''.join(others)}"


def labels(jobs: "Sequence[Job]", shared: Sequence[str] = ()) -> list[str]:
    """Each job's overrides, without those that all jobs share."""
    several = len(jobs) > 1 and not shared
    common = set(jobs[0].overrides).intersection(*(job.overrides for job in jobs)) if several else set(shared)
    return [" ".join(text for text in job.overrides if text not in common) or job.name for job in jobs]


@dataclass(frozen=True)
class Figures:
    """The metrics of the table, from a `metrics.csv`."""

    epoch: int | None = None
    """The last one that was trained, from 0."""
    best: float | None = None
    """The best val/top1."""
    step: float = 0.0
    steps_per_epoch: float | None = None


@dataclass(frozen=True)
class Seen:
    """The metrics of a file, with the file's time and size when it was read; `last`: they no longer change."""

    file: tuple[int, int]
    figures: Figures
    last: bool


def figures(rows: Sequence[dict[str, float]]) -> Figures:
    """The metrics of the rows. Rows of a test do not show the progress: they have the number of the next epoch."""
    trained = [row for row in rows if not any(name.startswith("test/") for name in row)]
    per_epoch = [row["step"] / (row["epoch"] + 1) for row in trained if "train/loss" in row]
    return Figures(
        epoch=max((int(row["epoch"]) for row in trained if "epoch" in row), default=None),
        best=best_metrics(trained).get("val/top1"),
        step=max((row["step"] for row in trained if "step" in row), default=0.0),
        steps_per_epoch=per_epoch[-1] if per_epoch else None,
    )


def look(job: "Job") -> Figures:
    """The metrics of a job; they are read again only if the file has changed, and never after the job has ended."""
    seen = job.seen
    if seen and seen.last:
        return seen.figures
    ended = job.state not in ("waiting", "running")
    path = job.folder / folders.METRICS
    try:
        status = path.stat()
        file = (status.st_mtime_ns, status.st_size)
        found = seen.figures if seen and seen.file == file else figures(read_rows(path))
    except (OSError, ValueError):  # no file yet, or it is being written
        file, found = (0, 0), seen.figures if seen else Figures()
    job.seen = Seen(file, found, ended)
    return found


def progress(job: "Job") -> tuple[str, ...]:
    """The last cells of `COLUMNS`, from the epoch on; empty until there are metrics."""
    known = look(job)
    spent = (job.ended or time.monotonic()) - job.started if job.started else None
    left = time_left(job, known, spent) if job.state == "running" and spent else None
    return (
        "" if known.epoch is None else f"{known.epoch + 1}",
        "" if known.best is None else f"{known.best:.4f}",
        "" if spent is None else clock(spent),
        "" if left is None else clock(left),
    )


def time_left(job: "Job", known: Figures, spent: float) -> float | None:
    """Seconds until the job's last step at its speed so far; None until the length of an epoch is known."""
    trainer = job.plan.settings["trainer"] if job.plan else {}
    total = trainer.get("max_steps") or -1
    if total < 0:
        total = known.steps_per_epoch * (trainer.get("max_epochs") or 0) if known.steps_per_epoch else -1
    done = known.step - job.steps_before
    return spent / done * (total - known.step) if total >= known.step and done > 0 else None
