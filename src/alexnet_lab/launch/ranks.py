"""Starts one process per rank and watches them, so that no rank outlives another.

Imports nothing heavy. The ranks find each other through the variables that torchrun sets, too.
"""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from alexnet_lab import machine, places
from alexnet_lab.errors import FINISHED, INTERRUPTED
from alexnet_lab.launch import ending, environment, slurm
from alexnet_lab.launch.ending import Failure, how_it_ended
from alexnet_lab.launch.stopping import PassedOn, send
from alexnet_lab.runs import folders

NOTICE_SECONDS = 2.0  # the other ranks may notice by themselves that one is gone
GRACE_SECONDS = 10.0  # a rank that cannot continue without the others has nothing to save
POLL_SECONDS = 0.05
LOOK_SECONDS, STOPPED_LOOKS = 1.0, 12
"""A rank that is stopped (state T) at 12 looks ends the run. A Ctrl-Z stops this process, too, and does not count."""
LIFELINE = "ALEXNET_LAB_LIFELINE"


def run_ranks(command: Sequence[str], folder: Path, ranks: int, stop: PassedOn, share_cores: bool = True) -> int:
    """Run `command` once per rank until all have ended; the exit status is that of the first rank that failed.

    When a rank fails, or is stopped, the others get SIGTERM and, after a grace period, SIGKILL. `stop` passes requests
    to stop on to the ranks. When this process itself is killed, the ranks notice and end. `result.json` gets the reason
    where no rank could write one.

    With `share_cores` each rank computes with its share of the cores' threads. Without it, each has as many threads as
    a single process, since the last bits of some CPU kernels depend on that number.
    """
    if stop.requested:
        return INTERRUPTED
    read_end, write_end = os.pipe()
    try:
        port = str(slurm.free_port("127.0.0.1"))
        for rank in range(ranks):
            stop.processes.append(_start(command, folder, rank, ranks, port, read_end, share_cores))
        if stop.requested:  # before all of them were started
            send(stop.processes, signal.SIGTERM)
        failure = _watch(stop.processes, folder, stop)
        if failure:
            _end(stop.processes)
        return ending.record_end(folder, failure, stop.requested) if failure else FINISHED
    finally:
        os.close(read_end)
        os.close(write_end)


def _start(
    command: Sequence[str], folder: Path, rank: int, ranks: int, port: str, lifeline: int, share_cores: bool
) -> subprocess.Popen[bytes]:
    variables = environment.without_foreign(os.environ)
    variables.pop("HYDRA_FULL_ERROR", None)
    variables["PYTHONPATH"] = places.python_path(variables.get("PYTHONPATH", ""))
    if share_cores:
        variables.setdefault("OMP_NUM_THREADS", str(max(1, len(machine.cores()) // ranks)))
    else:
        variables.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads of other ranks may need the core
    variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "NODE_RANK": "0", LIFELINE: str(lifeline)}
    variables |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
    # Rank 0 prints to the terminal; what the others print, and a crash of the interpreter, is in their logs.
    with nullcontext() if rank == 0 else (folder / f"train.rank{rank}.log").open("ab") as output:
        return subprocess.Popen(command, env=variables, stdout=output, stderr=output, pass_fds=[lifeline])


def _watch(processes: Sequence[subprocess.Popen[Any]], folder: Path, stop: PassedOn) -> Failure | None:
    """Wait until a rank has failed, or all have ended well."""
    look_at, stopped = time.monotonic(), [0] * len(processes)
    while True:
        codes = [process.poll() for process in processes]
        # A rank that was killed comes first: errors of the others follow from it. Ranks that stop do so together.
        failed = sorted((code > 0, rank, code) for rank, code in enumerate(codes) if code not in (None, 0, INTERRUPTED))
        if failed:
            _, rank, code = failed[0]
            return Failure(rank, code, how_it_ended(code))
        if None not in codes or (stop.requested and not folders.training_has_begun(folder)):
            interrupted = INTERRUPTED in codes or None in codes
            return Failure(0, INTERRUPTED, how_it_ended(INTERRUPTED)) if interrupted else None
        if time.monotonic() >= look_at:
            look_at = time.monotonic() + LOOK_SECONDS
            for rank, process in enumerate(processes):
                stopped[rank] = stopped[rank] + 1 if machine.is_stopped(process.pid) else 0
                if stopped[rank] >= STOPPED_LOOKS:
                    process.kill()
                    how = f"was stopped (state T) for {STOPPED_LOOKS * LOOK_SECONDS:.0f} s and was killed"
                    return Failure(rank, -signal.SIGKILL, how)
        time.sleep(POLL_SECONDS)


def _end(processes: Sequence[subprocess.Popen[Any]]) -> None:
    """Let the others notice and end by themselves, then end them."""
    for number, seconds in ((None, NOTICE_SECONDS), (signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, 5.0)):
        if number is not None:
            send(processes, number)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and any(process.poll() is None for process in processes):
            time.sleep(POLL_SECONDS)


def end_with_parent() -> None:
    """In a process that this project has started: end it as soon as its parent is gone, even if that was killed."""
    import threading

    if LIFELINE not in os.environ:
        return
    machine.end_with_parent()  # also where no thread of this process gets to run
    descriptor = int(os.environ.pop(LIFELINE))

    def wait() -> None:
        os.read(descriptor, 1)
        os._exit(1)

    threading.Thread(target=wait, daemon=True, name="lifeline").start()
