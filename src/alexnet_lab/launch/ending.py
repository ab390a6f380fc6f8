"""How a run ends that does not finish: the rank that failed records why, and one process reports it on the terminal.

Imports nothing heavy.
"""

import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alexnet_lab.command_line import command, from_here, override
from alexnet_lab.errors import FAILED, FINISHED, INTERRUPTED, USER_ERROR, RunFailed, UserError
from alexnet_lab.launch import starting
from alexnet_lab.runs import folders, result_file, start_note
from alexnet_lab.runs.failure import PEER_GONE, failure_of, record_failure, status_after

FILE_ONLY = {"file_only": True}
"""For a log entry that the terminal does not show, since `report` prints it there."""
LOOK_SECONDS = 1.0
"""Between looks of rank 0 at what other ranks have recorded."""
UNDO_SECONDS = 10.0

log = logging.getLogger(__name__)


def fail(folder: Path, error: BaseException | str) -> int:
    """In a rank: record and log `error`, unless another rank was first; returns the exit status."""
    status = status_after(folder, error)
    recorded = record_failure(folder, error)
    defect = not isinstance(error, (UserError, RunFailed, str))
    log.error("failed: %s", result_file.describe(error), exc_info=error if defect else None, extra=FILE_ONLY)  # type: ignore[arg-type]
    if not recorded:  # the disk is full: nobody else will report it
        print_failure(folder, failure_of(folder, error))
    return status


def write(folder: Path, status: result_file.Status, **figures: Any) -> None:
    """Write `result.json` where no rank could; it is printed when the disk does not take it."""
    try:
        result_file.write_result(folder / folders.RESULT, status, **figures)
    except RunFailed as error:
        print(error, file=sys.stderr)
        if figures["error"]:
            print_failure(folder, figures)


def conclude(folder: Path, status: int, rank: int | None = None) -> int:
    """In the process that has watched a run: report how it ended, and undo a start that a user's error ended.

    `rank` is that of a process whose companions are watched by others: rank 0 owns the folder, and the rank that
    recorded a failure reports it. None watches all ranks. Returns the command's exit status.
    """
    if status == USER_ERROR and not start_note.training_has_begun(folder):
        if not rank or not _undone_by_rank_0(folder):
            _print_refusal(folder)
        if not rank:
            _undo(folder)
        return USER_ERROR
    result = result_file.read_result(folder / folders.RESULT) or {}
    if result.get("status") == "refused":  # by one rank, as others had begun to train
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


def _undo(folder: Path) -> None:
    try:
        starting.undo(folder)
    except OSError as error:  # as of a disk that has become read-only
        print(f"{folder} cannot be left as it was: {error.filename}: {error.strerror}", file=sys.stderr, flush=True)


def followed_from_another_rank(result: Mapping[str, Any]) -> bool:
    """Whether the recorded failure is that of a rank that lost another one, so that the reason is another one's."""
    return str(result.get("error")).startswith(PEER_GONE)


def _print_refusal(folder: Path) -> None:
    error = (result_file.read_result(folder / folders.RESULT) or {}).get("error")
    if error:
        print(f"error: {error}", file=sys.stderr, flush=True)


def _undone_by_rank_0(folder: Path) -> bool:
    """Wait for rank 0 to report a refusal and to undo the start: the first rank that ends has all others killed."""
    deadline = time.monotonic() + UNDO_SECONDS
    while refused(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not refused(folder)


def refused(folder: Path) -> bool:
    """Whether a rank has recorded a user's error, and the start is to be undone."""
    return (result_file.read_result(folder / folders.RESULT) or {}).get("status") == "refused"


@contextmanager
def watch_for_refusals(folder: Path) -> Iterator[None]:
    """On rank 0, where no process of ours watches it: undo the start and end when another rank refuses it.

    Its main thread may be waiting for that rank, in a library, for many minutes.
    """
    over = threading.Event()

    def look() -> None:
        while not over.wait(LOOK_SECONDS):
            if refused(folder):
                os._exit(conclude(folder, USER_ERROR, rank=0))

    watching = threading.Thread(target=look, daemon=True, name="refusals")
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join()


def print_failure(folder: Path, result: dict[str, Any]) -> None:
    """Print a defect's traceback, and then what was wrong and the command that continues the run."""
    if result.get("traceback"):
        print(result["traceback"], file=sys.stderr)
    where = f" on rank {result['rank']}" if result.get("rank") and not result["error"].startswith("rank ") else ""
    separator = "\n" if "\n" in result["error"] else "; "
    print(f"failed{where}: {result['error']}{separator}{go_on(folder)}", file=sys.stderr, flush=True)


def go_on(folder: Path) -> str:
    """`continue with: python src/train.py resume=FOLDER`, as it can be pasted into a shell."""
    what = "continue" if (folder / folders.LAST).exists() else "start again"
    return f"{what} with: {command('train', override('resume', from_here(folder)))}"
