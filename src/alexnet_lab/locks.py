"""Locks between processes and machines, also on file systems without flock.

Imports nothing heavy.
"""

import logging
import os
import secrets
import shlex
import socket
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from alexnet_lab.errors import UserError

log = logging.getLogger(__name__)

MARKER = ".held"
RELEASED = "filelock/released"
"""The text that filelock writes into a marker that it cannot remove."""
UNFINISHED, ASIDE = ".writing", ".old"


def lock(path: Path, what: str) -> AbstractContextManager[Any]:
    """Hold the lock file `path` until the returned lock is closed or this process ends, even by a kill.

    Without flock, the lock is a marker file next to `path`. The next process takes over the marker of a dead process on
    this machine; it cannot see whether a process on another machine is dead.

    Args:
        what: what is locked, the subject of the message, as in `run first`.

    Raises:
        UserError: another process holds the lock.
        OSError: nothing can be written there.
    """
    from filelock import FileLock, Timeout  # not at module level: --help and --cfg do not need it

    marker = path.with_name(f"{path.name}{MARKER}")
    if (reason := _no_flock(path.parent)) is None:
        native = FileLock(path)
        try:
            # A moment's patience, for those who only look, see `is_held`.
            held: AbstractContextManager[Any] = native.acquire(timeout=0.2, poll_interval=0.05)
        except Timeout:
            raise UserError(f"{what} is being written by another process ({_read(path)})") from None
        with suppress(OSError):  # a full disk
            path.write_text(f"pid {os.getpid()} on {socket.gethostname()}")
        if _is_abandoned(record := _read(marker)):  # left by a process on a machine without flock, or before a move
            _take_away(marker, record)
        return held
    held = hold_marker(marker, what, seconds=0.0)
    log.warning("%s has no file locks (%s); using the marker file %s instead", path.parent, reason, marker.name)
    return held


def is_held(path: Path) -> bool:
    """Whether a process holds the lock `path`. Writes nothing; the folder may be read-only.

    A marker of another machine counts as held, because this machine cannot see whether its process is dead.
    """
    marker = path.with_name(f"{path.name}{MARKER}")
    if marker.exists():
        return not _is_abandoned(_read(marker))
    try:
        import fcntl

        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (OSError, ImportError):  # no lock file, or no flock here and no marker
        return False
    return False


def _no_flock(folder: Path) -> str | None:
    """The reason why flock cannot be used in `folder`; None if it works. Errors differ by system, so it is tried."""
    try:
        import fcntl
    except ImportError as error:
        return str(error)
    probe = beside(folder / "flock", UNFINISHED)
    try:
        with probe.open("x") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if not probe.exists():
            raise
        return error.strerror
    finally:
        with suppress(OSError):
            probe.unlink()
    return None


def hold_marker(marker: Path, what: str, seconds: float) -> AbstractContextManager[Any]:
    """Create the file `marker`, which is the lock; wait up to `seconds` for another process to remove its marker."""
    from filelock import SoftFileLock, Timeout

    for patience in (0.0, seconds):
        try:
            return SoftFileLock(marker).acquire(timeout=patience, poll_interval=0.02)
        except Timeout:
            record = _read(marker)
            if _is_abandoned(record):
                _take_away(marker, record)
            elif patience == seconds:
                break
    raise _held(marker, what, record)


def _is_abandoned(record: str) -> bool:
    """Whether the process that wrote `record` has released the lock, or is certainly dead.

    filelock itself removes such a marker, but only if the file system can exchange two names; NFS, SMB and FUSE cannot.
    """
    number, host = _holder(record)
    if record == RELEASED or not number.isdecimal() or host != _host():
        return record == RELEASED
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # another user's process, or no process number
        return False
    return False


def _holder(record: str) -> tuple[str, str]:
    """Process id and machine from a marker of filelock."""
    number, host, *_ = [*record.splitlines(), "", ""]
    return number, host


def _host() -> str:
    """This machine in filelock's notation: the host name, and in a container its PID namespace."""
    first = 0xEFFFFFFC  # of the machine itself
    namespace = first
    with suppress(OSError):
        namespace = os.stat("/proc/self/ns/pid").st_ino
    return socket.gethostname() + ("" if namespace == first else f"?pidns-{namespace:x}")


def _take_away(marker: Path, record: str) -> None:
    """Remove the marker of a dead process; if several processes try, only one removes it."""
    aside = beside(marker, ASIDE)
    with suppress(OSError):
        os.rename(marker, aside)
        if _read(aside) == record:
            aside.unlink()
        else:  # another process has taken the lock meanwhile
            os.rename(aside, marker)


def _held(marker: Path, what: str, record: str) -> UserError:
    number, host = _holder(record)
    holder = f"pid {number} on {host.partition('?')[0]}" if host else "unknown process"
    return UserError(
        f"{what} is being written by another process ({holder})\n"
        f"if that process has ended, delete its lock file: rm {shlex.quote(str(marker))}"
    )


def _read(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(errors="replace").strip()
    return ""


def beside(path: Path, ending: str) -> Path:
    """A new hidden name in the same folder, shortened because file systems allow 255 bytes."""
    return path.with_name(f".{path.name[:40]}.{secrets.token_hex(4)}{ending}")
