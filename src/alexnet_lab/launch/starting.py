"""Prepares a run's folder for a start, and undoes a start, by a note: see `alexnet_lab.runs.folders`.

A start writes the note and renames the record of an earlier start. Every rank removes the note when its training
begins; from then on nothing of the run is deleted. A user's error before that leaves the folder as it was. Undoing a
start only renames and deletes, so it works on a full disk.

Imports nothing heavy.
"""

import json
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from alexnet_lab import files, machine
from alexnet_lab.errors import UserError
from alexnet_lab.launch import ownership
from alexnet_lab.runs import folders, result_file
from alexnet_lab.runs.folders import CONFIG_BEFORE, NOTE, RESULT_BEFORE, training_begins

MADE_BY_A_START = (
    *(folders.CONFIG, folders.RESULT, folders.METRICS, folders.LEFT_OUT, folders.CHECKPOINTS, result_file.RESERVE),
    *("train*.log", "wandb", "tensorboard", NOTE, f"{folders.LOCK}*"),
)
"""In the order in which they are removed: the note stays as long as there is something to undo."""


def prepare(folder: Path, settings: dict[str, Any], continues: bool) -> None:
    """Record the configuration, and in the note the files that were there before; the caller holds the folder's lock.

    Raises:
        UserError: a new run would start in the folder of another one, or the folder cannot be written.
    """
    there = sorted(path.name for path in folder.iterdir() if not path.name.startswith(folders.LOCK))
    try:
        if continues:
            before = _put_record_aside(folder)
            ownership.rewrite(folder, settings)
        else:
            before = {"files": there}
            ownership.claim(folder, settings)
        _write(folder, {**before, "start": _this_start()})
    except UserError as error:
        if not isinstance(error.__cause__, OSError):
            raise  # the folder contains another run
        if not continues:
            _remove_what_a_start_makes(folder, there)
        elif (folder / NOTE).exists():
            undo(folder)
        raise


def has_prepared(folder: Path) -> bool:
    """Whether rank 0 of this start of torchrun has prepared the folder, and the training has not begun."""
    try:
        return bool(_read(folder).get("start") == _this_start())
    except FileNotFoundError:
        return False


def undo(folder: Path) -> None:
    """Restore the folder as it was before the start: an older record, other files of the user, or no folder."""
    before = _read(folder)
    if "files" in before:
        _remove_what_a_start_makes(folder, before["files"])
        return
    if (folder / CONFIG_BEFORE).exists():
        files.move_over(folder / CONFIG_BEFORE, folder / folders.CONFIG)
    if (folder / RESULT_BEFORE).exists():
        files.move_over(folder / RESULT_BEFORE, folder / folders.RESULT)
    elif not before["result"]:
        (folder / folders.RESULT).unlink(missing_ok=True)
    (folder / NOTE).unlink()


def _put_record_aside(folder: Path) -> dict[str, Any]:
    """Keep the record of an earlier start for `undo`; returns the content of the note.

    An existing note is from a start that was killed before its training began; the renamed record is older.
    """
    config, result = folder / folders.CONFIG, folder / folders.RESULT
    with ownership.writing(folder):
        if not (folder / NOTE).exists():
            training_begins(folder)  # also removes leftovers of a killed start
            files.write(folder / NOTE, json.dumps({"result": result.exists()}))
        before = _read(folder)
        if before.get("result") and not (folder / RESULT_BEFORE).exists():
            os.rename(result, folder / RESULT_BEFORE)
        if "files" not in before and not (folder / CONFIG_BEFORE).exists():
            files.write(folder / CONFIG_BEFORE, config.read_bytes())
        result.unlink(missing_ok=True)
    return before


def _remove_what_a_start_makes(folder: Path, there: Sequence[str]) -> None:
    """Remove the files of a start, except the names in `there`, and the folder if it is empty then."""
    made = [path for name in MADE_BY_A_START for path in folder.glob(name)]
    for path in made:
        if path.name in there:
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


def _this_start() -> str | None:
    """An identity that only the ranks of one start of torchrun share; None without torchrun."""
    environment = os.environ
    if "TORCHELASTIC_RUN_ID" not in environment:
        return None
    names = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_ADDR", "MASTER_PORT")
    common = [environment.get(name, "") for name in names]
    if environment.get("GROUP_WORLD_SIZE", "1") == "1":  # one node: the ranks have one parent, torchrun's agent
        common += [str(os.getppid()), machine.start_of(os.getppid())]
    return " ".join(common)


def _read(folder: Path) -> dict[str, Any]:
    note: dict[str, Any] = json.loads((folder / NOTE).read_text())
    return note


def _write(folder: Path, note: dict[str, Any]) -> None:
    with ownership.writing(folder):
        files.write(folder / NOTE, json.dumps(note))
