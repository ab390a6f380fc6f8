"""`data.unreadable=skip`: the images that a run leaves out, the same on every rank and in every continuation."""

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path

from alexnet_lab import distributed, files
from alexnet_lab.data.module import ImageDataModule
from alexnet_lab.data.photographs import Photographs
from alexnet_lab.data.readable import Unread
from alexnet_lab.errors import UserError, cannot_be_written
from alexnet_lab.runs import folders

log = logging.getLogger(__name__)


def leave_out_unreadable(data: ImageDataModule, folder: Path) -> dict[str, list[str]]:
    """Leave out the images that the run in `folder` leaves out; returns the entry for its checkpoints, if any.

    Raises:
        UserError: their record is damaged.
    """
    dataset = data.dataset
    if not isinstance(dataset, Photographs) or not dataset.images.skips_unreadable:
        return {}
    names = _names_left_out(folder, dataset.images.find_unreadable)
    dataset.images.leave_out(names)
    return {"left_out": names}


def leave_out(data: ImageDataModule, names: list[str]) -> None:
    """Leave out the images that are recorded in a checkpoint."""
    if isinstance(data.dataset, Photographs):
        data.dataset.images.leave_out(names)


def _names_left_out(folder: Path, find: Callable[[], list[Unread]]) -> list[str]:
    """Rank 0 of a new run calls `find` and records the result; other ranks and continued runs read it."""
    path = folder / folders.LEFT_OUT
    if not path.exists() and distributed.rank() == 0:
        found = [image._asdict() for image in find()]
        try:
            files.write(path, json.dumps(found, indent=1) + "\n")
        except OSError as error:
            raise cannot_be_written(path, error) from error
        log.info("written: %s", path)
    elif path.exists():
        log.info("unreadable images are left out as at the run's start: %s", path)
    # No time limit: if rank 0 fails, all ranks are ended.
    while not path.exists():
        time.sleep(0.2)
    try:
        return [str(image["file"]) for image in json.loads(path.read_text())]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}); start the run again under another name") from None
