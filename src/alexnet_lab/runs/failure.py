"""Records why a run failed: the reason of the rank that failed first.

Imports nothing heavy.
"""

import re
import time
import traceback
from pathlib import Path
from typing import Any

from alexnet_lab import distributed
from alexnet_lab.errors import FAILED, USER_ERROR, RunFailed, UserError
from alexnet_lab.runs import folders, result_file, start_note

LOST_CONNECTION = re.compile(r"Connection (?:closed|reset) by peer|Broken pipe|remote process exited")
OTHERS_SECONDS = 3.0
"""How long a rank that lost its connection waits for another rank to record the reason."""
PEER_GONE = "another rank ended without recording a reason; was it killed (out of memory?)"


def record_failure(folder: Path, error: BaseException | str, **facts: Any) -> bool:
    """Write `result.json` unless another rank did; False if it cannot be written."""
    if _lost_another_rank(error):
        deadline = time.monotonic() + OTHERS_SECONDS
        while not (folder / folders.RESULT).exists() and time.monotonic() < deadline:
            time.sleep(0.1)
    try:
        result_file.write_first(folder / folders.RESULT, **failure_of(folder, error), **facts)
    except (RunFailed, UserError):
        return False
    return True


def status_after(folder: Path, error: BaseException | str) -> int:
    """The exit status of a rank that ended with `error`."""
    is_refused = isinstance(error, UserError) and not start_note.training_has_begun(folder)
    return USER_ERROR if is_refused else FAILED


def failure_of(folder: Path, error: BaseException | str) -> dict[str, Any]:
    """The entries of `result.json` for a run that ended with `error`."""
    text = result_file.describe(error)
    if _lost_another_rank(error):
        text = f"{PEER_GONE}: {text}"
    defect = not isinstance(error, (UserError, RunFailed, str))
    return {
        "status": "refused" if status_after(folder, error) == USER_ERROR else "failed",
        "error": text,
        "rank": distributed.rank(),
        "traceback": "".join(traceback.format_exception(error)) if defect else None,  # type: ignore[arg-type]
    }


def _lost_another_rank(error: BaseException | str) -> bool:
    """Whether the error is a lost connection, so that another rank may have the reason."""
    several = distributed.ranks() > 1
    return several and isinstance(error, RuntimeError) and LOST_CONNECTION.search(str(error)) is not None
