"""Starts one process per rank and watches them from outside, so that a rank that dies never leaves the others behind.

Imports nothing heavy. The ranks find each other through the variables that torchrun sets, too.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from alexnet_lab import machine
from alexnet_lab.errors import FAILED, FINISHED, INTERRUPTED, USER_ERROR
from alexnet_lab.launch import ending, slurm, watchdog
from alexnet_lab.runs import folders, result_file, start_note

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
NOTICE_SECONDS = 2.0  # the others may notice by themselves that a rank is gone
GRACE_SECONDS = 10.0  # a rank that cannot go on without the others has nothing to save
SAME_WISH_SECONDS = 1.0
POLL_SECONDS = 0.05
LOOK_SECONDS = 3.0  # between looks at what ranks of other nodes have recorded
LIFELINE = "ALEXNET_LAB_LIFELINE"
FOREIGN = (
    *("LOCAL_", "RANK", "NODE_RANK", "GROUP_", "ROLE_", "WORLD_SIZE", "MASTER_", "TORCHELASTIC_", "SLURM_", "PL_"),
    "WANDB_SERVICE",  # another program's connection, which may be gone
)
LOG_LINES = 5


@dataclass(frozen=True)
class Failure:
    """The rank that failed first, its exit status as `subprocess` gives it, and how it ended, in words."""

    rank: int
    status: int
    how: str


def supervise(command: Sequence[str], folder: Path, ranks: int = 1, joined: Mapping[str, str] | None = None) -> int:
    """Run `command` once per rank until all have ended; the exit status is that of the first rank that failed.

    `joined` are the variables of a single rank whose companions have supervisors of their own, on other nodes perhaps;
    it ends when one of those records a failure.

    When a rank fails, or stops answering, the others get SIGTERM and, after a grace period, SIGKILL. Ctrl-C and SIGTERM
    are passed on, so that the ranks save and stop; a second one kills. When this process itself is killed, the ranks
    notice and end. A `result.json` says `failed`, or `interrupted` by such a request, when no rank could write one.
    """
    read_end, write_end = os.pipe()
    variables = [joined] if joined else _variables(ranks)
    listeners = [watchdog.Listener() for _ in variables]
    processes = [
        _start(command, folder, own, read_end, listener) for own, listener in zip(variables, listeners, strict=True)
    ]
    os.close(read_end)
    stop = StopRequests(processes)
    try:
        failure = _watch(processes, listeners, int(variables[0]["RANK"]), folder if joined else None)
        if failure:
            _end(processes)
        return _conclude(folder, failure, stop.requested) if failure else FINISHED
    finally:
        stop.restore()
        os.close(write_end)
        for listener in listeners:
            listener.close()


def _conclude(folder: Path, failure: Failure, stop_requested: bool) -> int:
    """Record how the run failed, where no rank knows better; returns the exit status."""
    result = result_file.read_result(folder / folders.RESULT)
    if result and result["status"] == "finished":  # a process may still go wrong when the work is done
        return FINISHED
    refused = failure.status == USER_ERROR or (result and result["status"] == "refused")
    if refused and not start_note.training_has_begun(folder):
        return USER_ERROR
    if stop_requested or failure.status == INTERRUPTED:
        if result is None:  # so early that no rank could save, or twice
            ending.write(folder, "interrupted", error=None)
        if result is None or result["status"] == "interrupted":
            return INTERRUPTED
    elif result is None or (failure.status < 0 and not _aborted_after(failure, result)):
        reason = {"error": _reason(folder, failure), "rank": failure.rank, "traceback": None}
        known = {name: value for name, value in (result or {}).items() if name != "status"}
        ending.write(folder, "failed", **{**known, **reason})
    return failure.status


def _aborted_after(failure: Failure, result: Mapping[str, Any]) -> bool:
    """Whether the rank was aborted since another one had failed, as NCCL does; else what others said only followed."""
    return failure.status == -signal.SIGABRT and not ending.followed_from_another_rank(result)


def end_with_supervisor() -> None:
    """In a rank: end the process as soon as the supervisor is gone, however it went."""
    import threading

    if LIFELINE not in os.environ:
        return
    machine.end_with_parent()  # also where no thread of this process gets to run
    descriptor = int(os.environ[LIFELINE])

    def wait() -> None:
        os.read(descriptor, 1)
        os._exit(1)

    threading.Thread(target=wait, daemon=True, name="lifeline").start()


class StopRequests:
    """Passes a request to stop on as SIGTERM; another one a while later kills.

    One wish often arrives as several signals at once: to the group, and passed on by a shell or a scheduler. Slurm
    repeats itself before it kills, so there only another Ctrl-C does. What the program was told to ignore, as `nohup`
    does, stays ignored.
    """

    def __init__(self, processes: Sequence[subprocess.Popen[Any]]) -> None:
        self._processes = processes
        self._first: float | None = None
        heeded = [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._pass_on) for number in heeded}

    @property
    def requested(self) -> bool:
        """Whether somebody has asked the run to stop."""
        return self._first is not None

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        slurm.asked.append(number)
        if self._first is None:
            self._first = now
            print("\nstopping after this step; once more to kill", file=sys.stderr)
            send(self._processes, signal.SIGTERM)
        elif now - self._first > SAME_WISH_SECONDS and (number == signal.SIGINT or "SLURM_JOB_ID" not in os.environ):
            send(self._processes, signal.SIGKILL)

    def restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def send(processes: Sequence[subprocess.Popen[Any]], number: int) -> None:
    """Send a signal to every process that still runs."""
    for process in processes:
        if process.poll() is None:
            process.send_signal(number)


def _variables(ranks: int) -> list[dict[str, str]]:
    """Of each rank, when all are on this machine, what torchrun would set."""
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(slurm.free_port("127.0.0.1")), "WORLD_SIZE": str(ranks)}
    return [{**meeting, "NODE_RANK": "0", "LOCAL_RANK": str(rank), "RANK": str(rank)} for rank in range(ranks)]


def _start(
    command: Sequence[str], folder: Path, variables: Mapping[str, str], lifeline: int, listener: watchdog.Listener
) -> subprocess.Popen[bytes]:
    rank, ranks = int(variables["RANK"]), int(variables["WORLD_SIZE"])
    environment = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    environment.pop("HYDRA_FULL_ERROR", None)
    source = str(Path(__file__).resolve().parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [source, environment.get("PYTHONPATH")]))
    environment |= {**variables, LIFELINE: str(lifeline), watchdog.PIPE: str(listener.write_end)}
    if ranks > 1 and "OMP_NUM_THREADS" not in environment:
        environment["OMP_NUM_THREADS"] = str(max(1, len(machine.cores()) // ranks))
    # Rank 0 speaks to the terminal; what the others print, a crash of the interpreter included, is in their logs.
    output = None if rank == 0 else (folder / f"train.rank{rank}.log").open("ab")
    descriptors = [lifeline, listener.write_end]
    process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, pass_fds=descriptors)
    listener.started()
    return process


def _watch(
    processes: Sequence[subprocess.Popen[Any]], listeners: Sequence[watchdog.Listener], first: int, shared: Path | None
) -> Failure | None:
    """Wait until a rank has failed, or all have ended well; `first` is the number of the first of these ranks.

    A failure that ranks elsewhere record in the folder `shared` counts, too.
    """
    look_at = time.monotonic()
    while True:
        codes = [process.poll() for process in processes]
        # One that was killed comes first: errors of the others follow from it. Ranks that stop do so together.
        failed = sorted((code > 0, rank, code) for rank, code in enumerate(codes) if code not in (None, 0, INTERRUPTED))
        if failed:
            _, rank, code = failed[0]
            return Failure(first + rank, code, how_it_ended(code))
        if None not in codes:
            return Failure(first, INTERRUPTED, how_it_ended(INTERRUPTED)) if INTERRUPTED in codes else None
        for rank, (process, listener) in enumerate(zip(processes, listeners, strict=True)):
            silent = listener.silent_for(process.pid, POLL_SECONDS) if codes[rank] is None else None
            if silent:
                process.kill()
                return Failure(first + rank, process.wait(), f"did not answer for {silent:.0f} s and was killed")
        if shared and time.monotonic() >= look_at:
            look_at = time.monotonic() + LOOK_SECONDS
            status = (result_file.read_result(shared / folders.RESULT) or {}).get("status")
            if status in ("failed", "refused"):
                return Failure(first, FAILED if status == "failed" else USER_ERROR, "ended with another rank")
        time.sleep(POLL_SECONDS)


def _end(processes: Sequence[subprocess.Popen[Any]]) -> None:
    """Let the others notice and end by themselves, then end them."""
    for number, seconds in ((None, NOTICE_SECONDS), (signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, 5.0)):
        if number is not None:
            send(processes, number)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and any(process.poll() is None for process in processes):
            time.sleep(POLL_SECONDS)


def _reason(folder: Path, failure: Failure) -> str:
    name = "train.log" if failure.rank == 0 else f"train.rank{failure.rank}.log"
    lines = last_lines(folder / name)
    return "\n".join([f"rank {failure.rank} {failure.how}" + (f"; the last lines of {name}:" if lines else ""), *lines])


def how_it_ended(status: int) -> str:
    """In words, the exit status of a process that failed."""
    how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    return f"{how} (out of memory?)" if status == -signal.SIGKILL else how


def last_lines(log: Path) -> list[str]:
    """The last few lines of a log; none where there is no log."""
    return log.read_text(errors="replace").splitlines()[-LOG_LINES:] if log.exists() else []
