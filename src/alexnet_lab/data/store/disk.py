"""Checks that the disk has room for a store before anything is written."""

import logging
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from alexnet_lab.data.sources.samples import Samples
from alexnet_lab.data.store.format import IMAGE_BYTES, Format, split_files
from alexnet_lab.errors import UserError

log = logging.getLogger(__name__)


def check_disk(partial: Path, samples: Samples, form: Format) -> None:
    """Logs the images to be stored in `partial`, the disk space still needed, and the free space.

    Raises:
        UserError: there is too little free space.
    """
    counts = {split: len(found) for split, found in samples.splits.items()}
    needed = max(0, _bytes_needed(form, counts) - _bytes_taken(partial, counts, form))
    disk = next(folder for folder in (partial, *partial.absolute().parents) if folder.exists())
    free = shutil.disk_usage(disk).free
    images = ", ".join(f"{count:,} {split}" for split, count in counts.items())
    log.info("images: %s, of %d classes", images, len(samples.wnids))
    for remark in samples.remarks:
        log.info("%s", remark)
    log.info("disk: %.2f GB needed, %.2f GB free on %s", needed / 1e9, free / 1e9, disk)
    if needed > free:
        raise UserError(
            f"the store needs {needed / 1e9:.2f} GB of disk, {disk} has {free / 1e9:.2f} GB free; choose a folder on a "
            "larger disk: data.dir=FOLDER" + ("" if form == "jpeg" else ", or use format=jpeg (a ninth of the size)")
        )


def _bytes_taken(partial: Path, splits: Iterable[str], form: Format) -> int:
    """Bytes that the image files already occupy; another process may be finishing them at the same time."""
    taken = 0
    for split in splits:
        with suppress(FileNotFoundError):
            taken += (partial / split_files(split, form)[0]).stat().st_blocks * 512
    return taken


def _bytes_needed(form: Format, counts: dict[str, int]) -> int:
    """Bytes on disk for a complete store; for JPEGs, a generous estimate."""
    each = IMAGE_BYTES if form == "uint8" else IMAGE_BYTES // 6
    return sum(counts.values()) * (each + 16) + 2**24
