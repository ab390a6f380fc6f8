"""How far a store in the making is, recorded in its folder, and whether that can be continued."""

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
    """How far the work is."""

    settings: dict[str, Any]
    """What decides the files' bytes; a partial store of other settings is not continued."""
    total: int = 0
    """Samples of the source."""
    samples: int = 0
    """Done, of all splits in their order."""
    counts: dict[str, int]
    """Images written, by split."""
    sizes: dict[str, int] = {}
    """Bytes of each growing file that are whole."""
    unreadable: list[tuple[str, str]] = []


def _load_record(folder: Path) -> tuple[Progress, statistics.Sums] | None:
    """Where the work in `folder` was left; None when it was hardly begun."""
    if not (folder / RECORD).exists():
        return None
    with np.load(folder / RECORD, allow_pickle=False) as record:
        progress = Progress.model_validate_json(str(record["progress"]))
        return progress, statistics.Sums(progress.counts.get("train", 0), record["pixels"], record["products"])


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps a second process out of `folder`, which is made; the lock goes with the process, however it ends.

    Raises:
        UserError: another process works there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locks.lock(folder / LOCK, f"the store {folder}"):
        files.tidy(folder)
        yield


def where_it_stopped(
    partial: Path, settings: dict[str, Any], samples: Samples, on_error: OnError
) -> tuple[Progress, statistics.Sums]:
    """Where the work in `partial` continues; without a record, `partial` is emptied and all work starts over.

    A run that ended with unreadable files starts over, since they may have been replaced.

    Raises:
        UserError: it was begun with other settings or another source.
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
