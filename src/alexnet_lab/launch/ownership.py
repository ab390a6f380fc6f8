"""Claims a run's folder, and locks it against a second writer.

Imports nothing heavy.
"""

import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from alexnet_lab import files, locks, places
from alexnet_lab.errors import UserError
from alexnet_lab.runs.folders import CHECKPOINTS, CONFIG, LOCK, as_yaml


def claim(folder: Path, config: dict[str, Any]) -> None:
    """Write `config.yaml` into a folder that contains no run yet; the first writer wins.

    Raises:
        UserError: the folder contains a run, or cannot be written.
    """
    with writing(folder):
        try:
            files.create(folder / CONFIG, as_yaml(config))
        except FileExistsError:
            raise taken(folder) from None


def taken(folder: Path) -> UserError:
    """The error for a new run in a folder that contains another one."""
    return UserError(
        f"run {folder.name} exists already in {folder.parent}\nresume=auto continues it; another run=NAME starts one"
    )


def rewrite(folder: Path, config: dict[str, Any]) -> None:
    """Replace `config.yaml` atomically, e.g. when a run continues with another trainer."""
    with writing(folder):
        files.write(folder / CONFIG, as_yaml(config))


def discard(folder: Path) -> None:
    """Remove a folder in which nothing was trained, so that its name is free."""
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Report errors of writing the first files of a run or sweep in `folder`.

    Raises:
        UserError: the file system is read-only, full, ...
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written: {files.reason_of(error)}\n"
            f"to put runs elsewhere: hydra.run.dir=FOLDER (a sweep: hydra.sweep.dir=FOLDER); {places.ELSEWHERE}"
        ) from error


def lock(folder: Path) -> AbstractContextManager[Any]:
    """Lock the folder until the returned lock is closed or the process ends.

    Raises:
        UserError: another process has locked it, or it cannot be written.
    """
    with writing(folder):
        held = locks.lock(folder / LOCK, f"run {folder.name}")
    for place in (folder, folder / CHECKPOINTS):
        files.tidy(place)
    return held
