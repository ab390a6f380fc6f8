"""Whether training has begun in a run's folder: the one note that decides whether a start may be undone.

A start makes the note, with what was recorded before it. Every rank removes it as its training begins; from then on
nothing of the run is deleted. A user's error before that leaves the folder as the note describes it.

Imports nothing heavy.
"""

import json
from pathlib import Path
from typing import Any

from alexnet_lab import files
from alexnet_lab.commands import folders
from alexnet_lab.errors import UserError
from alexnet_lab.tracking import record

NOTE = ".starting"
MADE_BY_A_START = (
    folders.LOCK,
    folders.CONFIG,
    folders.RESULT,
    folders.METRICS,
    folders.LEFT_OUT,
    record.RESERVE,
    NOTE,
)
LOGS = "train*.log"


def prepare(folder: Path, settings: dict[str, Any], continues: bool) -> None:
    """Record the configuration of a start, and in the note what was there before; the caller holds the folder's lock.

    Raises:
        UserError: a new run is to begin and another one is in the folder, or nothing can be written there.
    """
    config, result = folder / folders.CONFIG, folder / folders.RESULT
    if not continues:
        there = sorted(path.name for path in folder.iterdir() if not path.name.startswith(folders.LOCK))
        try:
            folders.claim(folder, settings)
            _write(folder, {"files": there})
        except UserError as error:
            if not there and isinstance(error.__cause__, OSError):
                folders.discard(folder)
            raise
        return
    if not (folder / NOTE).exists():  # else an earlier start was killed before its training began
        recorded = result.read_text() if result.exists() else None
        _write(folder, {"config": config.read_text(), "result": recorded})
    folders.rewrite(folder, settings)
    result.unlink(missing_ok=True)


def training_begins(folder: Path) -> None:
    """Nothing of the run is deleted from now on; each rank calls this before its first step."""
    (folder / NOTE).unlink(missing_ok=True)


def training_has_begun(folder: Path) -> bool:
    """Whether any rank has begun to train since the last start; True for a run that is not starting at all."""
    return not (folder / NOTE).exists()


def undo(folder: Path) -> None:
    """Leave the folder as it was before the start: an older record, somebody's other files, or no folder."""
    before = json.loads((folder / NOTE).read_text())
    if "config" in before:
        files.write(folder / folders.CONFIG, before["config"])
        if before["result"] is not None:
            files.write(folder / folders.RESULT, before["result"])
        else:
            (folder / folders.RESULT).unlink(missing_ok=True)
        (folder / NOTE).unlink()
    elif not before["files"]:
        folders.discard(folder)
    else:  # a folder of the user's, given as hydra.run.dir, or of a sweep's job
        made = [folder / name for name in MADE_BY_A_START] + list(folder.glob(LOGS))
        for path in made:
            if path.name not in before["files"]:
                path.unlink(missing_ok=True)


def _write(folder: Path, note: dict[str, Any]) -> None:
    with folders.writing(folder):
        files.write(folder / NOTE, json.dumps(note))
