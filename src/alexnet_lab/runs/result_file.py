"""`result.json`: the status, metrics, time, versions and hardware of a run that ended.

Imports nothing heavy, since the process that starts the ranks also writes it, when a rank was killed.
"""

import errno
import json
import math
import os
import platform
import re
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from alexnet_lab import distributed, files, locks
from alexnet_lab.errors import FAILED, USER_ERROR, RunFailed, UserError, cannot_be_written
from alexnet_lab.runs import folders

Status = Literal["finished", "failed", "interrupted", "pruned", "refused"]
"""`refused`: a user's error before training began, until the start is undone."""
ENDED_WELL = ("finished", "pruned")
"""Statuses of runs with exit status 0."""
KILLED = "the process was killed (out of memory?)"
NO_END = {"status": "failed", "error": KILLED}
"""The result of a run whose process was killed before it could record one."""
RESERVE, RESERVE_BYTES = ".reserve", 65536
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
PACKAGES = ("torch", "torchvision", "lightning", "hydra-core", "wandb", "torchmetrics", "numpy")

LOST_CONNECTION = re.compile(r"Connection (?:closed|reset) by peer|Broken pipe|remote process exited")
OTHERS_SECONDS = 3.0
"""How long a rank that lost its connection waits for another rank to record the reason."""
PEER_GONE = "another rank ended without recording a reason; was it killed (out of memory?)"


def write_result(path: Path, status: Status, **figures: Any) -> None:
    """Write `result.json`, replacing an older one atomically; raises RunFailed if the disk refuses, see `reserve`."""
    _write(files.write, path, _json(status, figures))


def write_first(path: Path, status: Status, **figures: Any) -> None:
    """As `write_result`, unless the file exists: the first rank that fails has the reason."""
    with suppress(FileExistsError):
        _write(files.create, path, _json(status, figures))


def reserve(path: Path) -> None:
    """Reserve disk space, so that `result.json` can be written after a run has filled the disk."""
    with suppress(OSError):
        (path.parent / RESERVE).write_bytes(os.urandom(RESERVE_BYTES))  # some file systems compress zeros


def describe(error: BaseException | str) -> str:
    """An exception as `result.json` records it: its message, with the type if it is a defect."""
    if isinstance(error, (RunFailed, UserError, str)):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def record_failure(folder: Path, error: BaseException | str, **facts: Any) -> bool:
    """Write `result.json` unless another rank did; False if it cannot be written."""
    if _lost_another_rank(error):
        deadline = time.monotonic() + OTHERS_SECONDS
        while not (folder / folders.RESULT).exists() and time.monotonic() < deadline:
            time.sleep(0.1)
    try:
        write_first(folder / folders.RESULT, **failure_of(folder, error), **facts)
    except (RunFailed, UserError):
        return False
    return True


def status_after(folder: Path, error: BaseException | str) -> int:
    """The exit status of a rank that ended with `error`."""
    is_refused = isinstance(error, UserError) and not folders.training_has_begun(folder)
    return USER_ERROR if is_refused else FAILED


def failure_of(folder: Path, error: BaseException | str) -> dict[str, Any]:
    """The entries of `result.json` for a run that ended with `error`."""
    text = describe(error)
    if _lost_another_rank(error):
        text = f"{PEER_GONE}: {text}"
    defect = not isinstance(error, (UserError, RunFailed, str))
    return {
        "status": "refused" if status_after(folder, error) == USER_ERROR else "failed",
        "error": text,
        "rank": distributed.rank(),
        "traceback": "".join(traceback.format_exception(error)) if defect else None,  # type: ignore[arg-type]
    }


def read_result(path: Path) -> dict[str, Any] | None:
    """The recorded result; None if the file does not exist. Raises UserError if it is damaged."""
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: it is not a JSON object")
    return content


def read_end(path: Path) -> dict[str, Any] | None:
    """The result of a run that ended; `NO_END` if it was killed; None while a process works in its folder."""
    result = read_result(path)
    return NO_END if result is None and not is_running(path.parent) else result


def is_running(folder: Path) -> bool:
    """Whether a process holds the lock of a run's folder."""
    return locks.is_held(folder / folders.LOCK)


def versions() -> dict[str, str]:
    """The versions of Python and the main packages."""
    from importlib.metadata import PackageNotFoundError, version  # here, since it is slow to import

    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _lost_another_rank(error: BaseException | str) -> bool:
    """Whether the error is a lost connection, so that another rank may have the reason."""
    several = distributed.ranks() > 1
    return several and isinstance(error, RuntimeError) and LOST_CONNECTION.search(str(error)) is not None


def _finite(value: Any) -> Any:
    """`value` with None for NaN and infinities, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _json(status: Status, figures: dict[str, Any]) -> str:
    return json.dumps(_finite({"status": status, **figures}), indent=2, allow_nan=False) + "\n"


def _write(write: Callable[[Path, str], None], path: Path, text: str) -> None:
    reserved = path.with_name(RESERVE)
    try:
        try:
            write(path, text)
        except OSError as error:
            if error.errno not in FULL_DISK or not reserved.exists():
                raise
            reserved.unlink()
            write(path, text)
    except FileExistsError:
        raise
    except OSError as error:
        raise cannot_be_written(path, error) from error
    reserved.unlink(missing_ok=True)
