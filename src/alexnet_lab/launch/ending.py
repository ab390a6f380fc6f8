"""Records why a run did not finish, in the rank that failed, and reports it on the terminal, in one process.

Imports nothing heavy.
"""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet_lab.command_line import command, from_here, override
from alexnet_lab.errors import FAILED, FINISHED, INTERRUPTED, USER_ERROR, RunFailed, UserError
from alexnet_lab.launch import starting
from alexnet_lab.runs import folders, result_file
from alexnet_lab.runs.result_file import PEER_GONE, failure_of, record_failure, status_after

FILE_ONLY = {"file_only": True}
"""For a log entry that the terminal does not show, since `report` prints it there."""
LOOK_SECONDS = 1.0
"""Between looks at what other ranks have recorded."""
FOLLOW_SECONDS = 12.0
"""After which a rank ends that has not noticed by itself that another one failed."""
UNDO_SECONDS = 10.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Failure:
    """The rank that failed first, its exit status as `subprocess` gives it, and how it ended, in words."""

    rank: int
    status: int
    how: str


def fail(folder: Path, error: BaseException | str) -> int:
    """Record and log `error` of this rank, unless another rank has recorded one before; returns the exit status."""
    status = status_after(folder, error)
    recorded = record_failure(folder, error)
    defect = not isinstance(error, (UserError, RunFailed, str))
    log.error("failed: %s", result_file.describe(error), exc_info=error if defect else None, extra=FILE_ONLY)  # type: ignore[arg-type]
    if not recorded:  # the disk is full, so no other process can report it
        print_failure(folder, failure_of(folder, error))
    return status


def write(folder: Path, status: result_file.Status, **figures: Any) -> None:
    """Write `result.json` where no rank could. If it cannot be written, the error is printed."""
    try:
        result_file.write_result(folder / folders.RESULT, status, **figures)
    except RunFailed as error:
        print(error, file=sys.stderr)
        if figures["error"]:
            print_failure(folder, figures)


def conclude(folder: Path, status: int, rank: int | None = None) -> int:
    """Report how a run ended, in the process that owns it. Undo a start that ended before the training began.

    `rank` is given for ranks of torchrun and srun: rank 0 owns the folder, and the rank that recorded a failure reports
    it. None: this process owns all ranks. Returns the command's exit status.
    """
    if status in (USER_ERROR, INTERRUPTED) and not folders.training_has_begun(folder):
        if status == INTERRUPTED:
            if not rank:
                print("interrupted before the training began", file=sys.stderr, flush=True)
        elif not rank or not _undone_by_rank_0(folder):
            _print_refusal(folder)
        if not rank:
            _undo(folder)
        return status
    result = result_file.read_result(folder / folders.RESULT) or {}
    if result.get("status") == "refused":  # by one rank, while others had begun to train
        result["status"] = "failed"
        write(folder, **result)
    if status == INTERRUPTED and not rank:
        reason = f" ({result['reason']})" if result.get("reason") else ""
        print(f"interrupted{reason}; {go_on(folder)}", file=sys.stderr, flush=True)
    if status in (FINISHED, INTERRUPTED):
        return status
    if result.get("error") and (rank is None or result.get("rank") == rank):
        print_failure(folder, result)
    return FAILED


def record_end(folder: Path, failure: Failure, stop_requested: bool) -> int:
    """Record how the run failed, in the process that watches all ranks, unless a rank has recorded its reason.

    Returns the exit status.
    """
    result = result_file.read_result(folder / folders.RESULT)
    if result and result["status"] in result_file.ENDED_WELL:  # a process may still fail when the work is done
        return FINISHED
    if not folders.training_has_begun(folder):
        if failure.status == USER_ERROR or (result and result["status"] == "refused"):
            return USER_ERROR
        if stop_requested:
            return INTERRUPTED
    if stop_requested or failure.status == INTERRUPTED:
        if result is None:  # no rank could save, or at the second request
            write(folder, "interrupted", error=None, reason="signal")
        if result is None or result["status"] == "interrupted":
            return INTERRUPTED
    elif result is None or (failure.status < 0 and not _aborted_after(failure, result)):
        reason = {"error": _reason(folder, failure), "rank": failure.rank, "traceback": None}
        known = {name: value for name, value in (result or {}).items() if name != "status"}
        write(folder, "failed", **{**known, **reason})
    return failure.status


def _aborted_after(failure: Failure, result: Mapping[str, Any]) -> bool:
    """Whether NCCL aborted the rank because another one had failed, whose own reason is recorded."""
    followed = str(result.get("error")).startswith(PEER_GONE)
    return failure.status == -signal.SIGABRT and not followed


def _reason(folder: Path, failure: Failure) -> str:
    name = "train.log" if failure.rank == 0 else f"train.rank{failure.rank}.log"
    lines = last_lines(folder / name)
    return "\n".join([f"rank {failure.rank} {failure.how}" + (f"; the last lines of {name}:" if lines else ""), *lines])


def how_it_ended(status: int) -> str:
    """The exit status of a process that failed, in words."""
    how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    return f"{how} (out of memory?)" if status == -signal.SIGKILL else how


def last_lines(log: Path, count: int = 5) -> list[str]:
    """The last lines of a log; none where there is no log."""
    return log.read_text(errors="replace").splitlines()[-count:] if log.exists() else []


def _undo(folder: Path) -> None:
    try:
        starting.undo(folder)
    except OSError as error:  # e.g. a disk that has become read-only
        print(f"{folder} cannot be restored: {error.filename}: {error.strerror}", file=sys.stderr, flush=True)


def _print_refusal(folder: Path) -> None:
    error = (result_file.read_result(folder / folders.RESULT) or {}).get("error")
    if error:
        print(f"error: {error}", file=sys.stderr, flush=True)


def _undone_by_rank_0(folder: Path) -> bool:
    """Wait until rank 0 has reported the error and undone the start: when one rank ends, the others are killed."""
    deadline = time.monotonic() + UNDO_SECONDS
    while refused(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not refused(folder)


def refused(folder: Path) -> bool:
    """Whether a rank has recorded a user's error before training, so that the start must be undone."""
    return (result_file.read_result(folder / folders.RESULT) or {}).get("status") == "refused"


@contextmanager
def watching_other_ranks(folder: Path, rank: int) -> Iterator[None]:
    """End this rank of torchrun or srun when another one has failed; no parent process watches it.

    Its main thread may be waiting for another rank, in a library, for many minutes. Rank 0 undoes a start that another
    rank refuses.
    """
    over = threading.Event()

    def look() -> None:
        while not over.wait(LOOK_SECONDS):
            if rank == 0 and refused(folder):
                os._exit(conclude(folder, USER_ERROR, rank=0))
            result = result_file.read_result(folder / folders.RESULT) or {}
            if result.get("status") == "failed" and result.get("rank") != rank and not over.wait(FOLLOW_SECONDS):
                log.error("ended %.0f s after rank %s, which failed", FOLLOW_SECONDS, result.get("rank"))
                logging.shutdown()
                os._exit(FAILED)

    watching = threading.Thread(target=look, daemon=True, name="other ranks")
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join()


def end_at_once(folder: Path) -> None:
    """End without saving, at the second request to stop; called in a thread of the process that trains."""
    if not (folder / folders.CONFIG).exists():
        os._exit(INTERRUPTED)
    result = result_file.read_result(folder / folders.RESULT) or {}
    if folders.training_has_begun(folder) and not result:
        write(folder, "interrupted", error=None, reason="signal")
    recorded = dict.fromkeys(result_file.ENDED_WELL, FINISHED) | {"failed": FAILED}
    status = conclude(folder, recorded.get(result.get("status", ""), INTERRUPTED))
    logging.shutdown()
    os._exit(status)


def print_failure(folder: Path, result: dict[str, Any]) -> None:
    """Print the traceback of a bug, the reason, and the command that continues the run."""
    if result.get("traceback"):
        print(result["traceback"], file=sys.stderr)
    where = f" on rank {result['rank']}" if result.get("rank") and not result["error"].startswith("rank ") else ""
    separator = "\n" if "\n" in result["error"] else "; "
    print(f"failed{where}: {result['error']}{separator}{go_on(folder)}", file=sys.stderr, flush=True)


def go_on(folder: Path) -> str:
    """`continue with: python src/train.py resume=FOLDER`, as it can be pasted into a shell."""
    what = "continue" if (folder / folders.LAST).exists() else "start again"
    return f"{what} with: {command('train', override('resume', from_here(folder)))}"
