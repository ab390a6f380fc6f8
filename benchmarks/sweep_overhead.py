"""What a sweep costs over its jobs: 8 jobs of one step each against 8 single runs of the same, and two jobs at once
against one after the other.

Every run is the real command in a process of its own. Jobs and single runs have the same number of threads: all cores,
or, where two run at once, those of their half. The longer jobs of the second comparison train on one thread.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _report import ROOT, report

ONE_STEP = (
    *("model=lenet", "data=synthetic", "trainer=cpu", "logger=none", "checkpoints=none", "test_on=none"),
    *("data.train_size=32", "data.val_size=32", "trainer.max_steps=1"),
)
LONGER = (
    *("model=lenet", "data=synthetic", "trainer=cpu", "logger=none", "checkpoints=none", "test_on=none"),
    *("data.val_size=32", "trainer.max_epochs=1"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time of a sweep over that of single runs, and of two jobs at once.")
    parser.add_argument("--quick", action="store_true", help="fewer jobs, within a minute")
    quick = parser.parse_args().quick
    jobs, size = (2, 8192) if quick else (8, 16384)
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("sweep_overhead needs two cores")
    folder = Path(tempfile.mkdtemp(prefix="sweep_overhead-"))
    try:
        seeds = range(jobs)
        single = sum(train(*ONE_STEP, f"seed={seed}", f"hydra.run.dir={folder}/single{seed}") for seed in seeds)
        swept = sweep(folder / "swept", *ONE_STEP, f"seed={','.join(map(str, seeds))}")
        # On the same two cores, however many there are; one thread per job both times.
        os.sched_setaffinity(0, cores[:2])
        longer = (*LONGER, f"data.train_size={size}", "seed=0,1")
        in_turn = sweep(folder / "in_turn", *longer, threads=1)
        at_once = sweep(folder / "at_once", *longer, "hydra.launcher.jobs_at_once=2", threads=1)
    finally:
        shutil.rmtree(folder)
    rows = [
        (f"{jobs} jobs of one step", f"{swept:.1f}", f"{single:.1f}", f"{swept / single:.2f}"),
        ("2 longer jobs at once", f"{at_once:.1f}", f"{in_turn:.1f}", f"{at_once / in_turn:.2f}"),
    ]
    ratios = {"sweep_vs_single_runs": swept / single, "two_at_once_vs_sequential": at_once / in_turn}
    figures = {"sweep_s": swept, "single_runs_s": single, "at_once_s": at_once, "in_turn_s": in_turn, "jobs": jobs}
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
