"""The progress of an unfinished store, recorded in its folder, and whether it can be continued."""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel

from alexnet_lab import files, locks
from alexnet_lab.data.sources.samples import Samples
from alexnet_lab.data.store import statistics
from alexnet_lab.errors import UserError

log = logging.getLogger(__name__)

RECORD = "progress.npz"
LOCK = "lock"

OnError = Literal["fail", "skip"]


class Progress(BaseModel):
    """The recorded progress."""

    settings: dict[str, Any]
    """The settings that determine the files' bytes; a partial store with other settings is not continued."""
    total: int = 0
    """Number of samples of the source."""
    samples: int = 0
    """Number of converted samples, over all splits in order."""
    counts: dict[str, int]
    """Number of images written, by split."""
    sizes: dict[str, int] = {}
    """Number of valid bytes of each growing file."""
    unreadable: list[tuple[str, str]] = []


def _load_record(folder: Path) -> tuple[Progress, statistics.Sums] | None:
    """The recorded state of the work in `folder`; None if there is none yet."""
    if not (folder / RECORD).exists():
        return None
    with np.load(folder / RECORD, allow_pickle=False) as record:
        progress = Progress.model_validate_json(str(record["progress"]))
        return progress, statistics.Sums(progress.counts.get("train", 0), record["pixels"], record["products"])


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Creates and locks `folder`; the lock ends with the process, even after a kill.

    Raises:
        UserError: another process holds the lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locks.lock(folder / LOCK, f"the store {folder}"):
        files.tidy(folder)
        yield


def recorded_progress(
    partial: Path, settings: dict[str, Any], samples: Samples, on_error: OnError
) -> tuple[Progress, statistics.Sums]:
    """The state from which the work in `partial` continues; without a record, `partial` is emptied.

    Work that ended with unreadable files starts over, because the files may have been replaced.

    Raises:
        UserError: the work was started with other settings or another source.
    """
    total = sum(map(len, samples.splits.values()))
    record = _load_record(partial)
    if record is not None:
        progress, _ = record
        if progress.unreadable and progress.samples == progress.total and on_error == "fail":
            log.info("%s ended with unreadable files; starting over", partial)
            record = None
        elif progress.settings != settings:
            differs = ", ".join(key for key in settings if progress.settings.get(key) != settings[key])
            raise UserError(
                f"{partial} was started with other settings (different: {differs}); use the same settings, or delete it"
            )
        else:
            log.info("continuing %s at image %s of %s", partial, f"{progress.samples:,}", f"{total:,}")
            return record
    for path in partial.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in (LOCK, f"{LOCK}{locks.MARKER}"):
            path.unlink()
    return Progress(settings=settings, total=total, counts=dict.fromkeys(samples.splits, 0)), statistics.zero()
