"""Overhead of a sweep: 8 jobs of one step compared with 8 single runs, and two jobs at once compared with one after
the other.

Every run is the real command in a process of its own. Jobs and single runs have the same number of threads: all cores,
or, where two run at once, those of their half. The longer jobs of the second comparison train on one thread.
Rounds of single runs and of sweeps alternate; the ratio is the median of theirs.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _report import ROOT, median_ratio, report

ONE_STEP = (
    *("model=lenet", "data=synthetic", "trainer=cpu", "logger=none", "checkpoints=none", "test_on=none"),
    *("data.train_size=32", "data.val_size=32", "trainer.max_steps=1"),
)
LONGER = (
    *("model=lenet", "data=synthetic", "trainer=cpu", "logger=none", "checkpoints=none", "test_on=none"),
    *("data.val_size=32", "trainer.max_epochs=1"),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Time of a sweep divided by that of single runs, and of two jobs at once."
    )
    parser.add_argument("--quick", action="store_true", help="fewer jobs, within a minute")
    quick = parser.parse_args().quick
    jobs, rounds, size = (2, 1, 8192) if quick else (8, 3, 16384)
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("sweep_overhead needs two cores")
    folder = Path(tempfile.mkdtemp(prefix="sweep_overhead-"))
    try:
        single: list[float] = []
        swept: list[float] = []
        for turn in range(rounds):
            of_turn = folder / str(turn)
            single.append(sum(train(*ONE_STEP, f"seed={i}", f"hydra.run.dir={of_turn}/single{i}") for i in range(jobs)))
            swept.append(sweep(of_turn / "swept", *ONE_STEP, f"seed=range({jobs})"))
        # On the same two cores of the machine; one thread per job in both cases.
        os.sched_setaffinity(0, cores[:2])
        longer = (*LONGER, f"data.train_size={size}", "seed=0,1")
        in_turn = sweep(folder / "in_turn", *longer, threads=1)
        at_once = sweep(folder / "at_once", *longer, "hydra.launcher.jobs_at_once=2", threads=1)
    finally:
        shutil.rmtree(folder)
    ratios = {
        "sweep_vs_single_runs": median_ratio(swept, single),
        "two_at_once_vs_sequential": at_once / in_turn,
    }
    figures = {"sweep_s": statistics.median(swept), "single_runs_s": statistics.median(single)}
    figures |= {"at_once_s": at_once, "in_turn_s": in_turn, "jobs": jobs, "rounds": rounds}
    rows = [
        (what, f"{figures[seconds]:.1f}", f"{figures[beside]:.1f}", f"{ratio:.2f}")
        for what, seconds, beside, ratio in (
            (f"{jobs} jobs of one step", "sweep_s", "single_runs_s", ratios["sweep_vs_single_runs"]),
            ("2 longer jobs at once", "at_once_s", "in_turn_s", ratios["two_at_once_vs_sequential"]),
        )
    ]
    report("sweep_overhead", ("what", "s", "single or in turn, s", "ratio"), rows, ratios, figures)


def train(*arguments: str, threads: int | None = None) -> float:
    """Seconds of one command; it must succeed."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    started = time.perf_counter()
    command = [sys.executable, str(ROOT / "src" / "train.py"), *arguments]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    if ended.returncode:
        sys.exit(f"{' '.join(command)}\n{ended.stdout}\n{ended.stderr}")
    return time.perf_counter() - started


def sweep(folder: Path, *arguments: str, threads: int | None = None) -> float:
    """Seconds of one sweep in `folder`."""
    return train("-m", *arguments, f"hydra.sweep.dir={folder}", threads=threads)


if __name__ == "__main__":
    main()
