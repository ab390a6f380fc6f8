"""How a run ends that does not finish: the rank that failed records why, and one process reports it on the terminal.

Imports nothing heavy.
"""

import logging
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alexnet_lab.command_line import command, from_here, override
from alexnet_lab.commands import folders, starting
from alexnet_lab.errors import FAILED, FINISHED, INTERRUPTED, USER_ERROR, RunFailed, UserError
from alexnet_lab.tracking import record

FILE_ONLY = {"file_only": True}
"""For a log entry that the terminal does not show, since `report` prints it there."""
LOST_CONNECTION = re.compile(r"Connection (?:closed|reset) by peer|Broken pipe|remote process exited")
LOOK_SECONDS = 1.0
"""Between looks of rank 0 at what other ranks have recorded."""
UNDO_SECONDS = 10.0
OTHERS_SECONDS = 3.0
"""How long a rank that lost another one waits for that one's reason."""
PEER_GONE = "another rank ended without recording a reason; was it killed (out of memory?)"

log = logging.getLogger(__name__)


def fail(folder: Path, error: BaseException | str) -> int:
    """In a rank: record and log `error`, unless another rank was first; returns the exit status."""
    status = _status(folder, error)
    recorded = record_failure(folder, error)
    defect = not isinstance(error, (UserError, RunFailed, str))
    log.error("failed: %s", record.describe(error), exc_info=error if defect else None, extra=FILE_ONLY)  # type: ignore[arg-type]
    if not recorded:  # the disk is full: nobody else will report it
        print_failure(folder, _failure(folder, error))
    return status


def record_failure(folder: Path, error: BaseException | str, **facts: Any) -> bool:
    """Write `result.json` unless another rank has; False when it cannot be written."""
    if _lost_another_rank(error):
        deadline = time.monotonic() + OTHERS_SECONDS
        while not (folder / folders.RESULT).exists() and time.monotonic() < deadline:
            time.sleep(0.1)
    try:
        record.write_first(folder / folders.RESULT, **_failure(folder, error), **facts)
    except (RunFailed, UserError):
        return False
    return True


def write(folder: Path, status: record.Status, **figures: Any) -> None:
    """Write `result.json` where no rank could; it is printed when the disk does not take it."""
    try:
        record.write_result(folder / folders.RESULT, status, **figures)
    except RunFailed as error:
        print(error, file=sys.stderr)
        if figures["error"]:
            print_failure(folder, figures)


def conclude(folder: Path, status: int, rank: int | None = None) -> int:
    """In the process that has watched a run: report how it ended, and undo a start that a user's error ended.

    `rank` is that of a process whose companions are watched by others: rank 0 owns the folder, and the rank that
    recorded a failure reports it. None watches all ranks. Returns the command's exit status.
    """
    if status == USER_ERROR and not starting.training_has_begun(folder):
        if not rank or not _undone_by_rank_0(folder):
            _print_refusal(folder)
        if not rank:
            _undo(folder)
        return USER_ERROR
    result = record.read_result(folder / folders.RESULT) or {}
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
    error = (record.read_result(folder / folders.RESULT) or {}).get("error")
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
    return (record.read_result(folder / folders.RESULT) or {}).get("status") == "refused"


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


def _status(folder: Path, error: BaseException | str) -> int:
    is_refused = isinstance(error, UserError) and not starting.training_has_begun(folder)
    return USER_ERROR if is_refused else FAILED


def _failure(folder: Path, error: BaseException | str) -> dict[str, Any]:
    text = record.describe(error)
    if _lost_another_rank(error):
        text = f"{PEER_GONE}: {text}"
    defect = not isinstance(error, (UserError, RunFailed, str))
    return {
        "status": "refused" if _status(folder, error) == USER_ERROR else "failed",
        "error": text,
        "rank": int(os.environ.get("RANK", "0")),
        "traceback": "".join(traceback.format_exception(error)) if defect else None,  # type: ignore[arg-type]
    }


def _lost_another_rank(error: BaseException | str) -> bool:
    """Whether the error follows from the end of another rank, which may have had the reason."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return several and isinstance(error, RuntimeError) and LOST_CONNECTION.search(str(error)) is not None
