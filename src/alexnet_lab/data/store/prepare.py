"""Converts a source of images into a store, on all cores; continues after a kill."""

import errno
import logging
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import PIL
from PIL import features
from tqdm import tqdm

from alexnet_lab import files, locks, machine
from alexnet_lab.data.imagenet_classes import names_by_wnid
from alexnet_lab.data.sources.samples import Samples, find_samples
from alexnet_lab.data.store import statistics
from alexnet_lab.data.store.checksums import BLOCK_BYTES, file_checksums
from alexnet_lab.data.store.converting import Chunk, convert_all
from alexnet_lab.data.store.disk import check_disk
from alexnet_lab.data.store.format import (
    IMAGE_SHAPE,
    MEAN_IMAGE,
    TRANSPARENCY,
    VERSION,
    Format,
    Skipped,
    StoreClass,
    StoreMeta,
    folder_to_make,
    npy_header,
    split_files,
    write_meta,
)
from alexnet_lab.data.store.progress import LOCK, RECORD, OnError, Progress, locked, recorded_progress
from alexnet_lab.data.store.reading import open_store
from alexnet_lab.data.store.writing import StoreWriter
from alexnet_lab.errors import UserError

log = logging.getLogger(__name__)

SHOWN = 20
"""Number of unreadable files in the message; a list next to the store contains all of them."""


def prepare(
    source: Path | Sequence[Path],
    target: Path,
    *,
    name: str,
    format: Format = "uint8",
    on_error: OnError = "fail",
    num_classes: int | None = None,
    workers: int | None = None,
    chunk_images: int = 64,
    save_seconds: float = 5.0,
) -> StoreMeta:
    """Creates or finishes the store of the dataset `name` in the folder `target`; a finished store is unchanged.

    The bytes of the files depend only on the images, `name`, `format` and `on_error`. Progress goes to standard error.

    Args:
        source: a folder or an archive, or several parts of one source, see `sources/samples.py`.
        on_error: how to treat unreadable images: `fail` lists them at the end and makes no store, `skip` leaves them
            out and records them in `meta.json`.
        num_classes: the required number of classes.
        workers: processes, by default one per core.
        chunk_images: images per unit of work.
        save_seconds: a kill loses at most this many seconds of work.

    Raises:
        UserError: the source is not valid, the disk is too small, images are unreadable, another process is making the
            store, or `target` contains something else.
    """
    workers = len(machine.cores()) if workers is None else workers
    if workers < 1:
        raise UserError(f"workers must be at least 1, got {workers}")
    samples = find_samples([source] if isinstance(source, Path) else source)
    if num_classes not in (None, len(samples.wnids)):
        raise UserError(
            f"data.num_classes is {num_classes}, the source has training images of {len(samples.wnids)} classes"
        )
    settings = _settings(name, format, samples)
    if (made := _already_made(target, settings, on_error)) is not None:
        return made
    target = folder_to_make(target, "data.dir")
    partial = target.with_name(f"{target.name}.partial")
    check_disk(partial, samples, format)
    with locked(partial):
        if (made := _already_made(target, settings, on_error)) is not None:  # by another process, a moment ago
            shutil.rmtree(partial, ignore_errors=True)
            return made
        progress, sums = recorded_progress(partial, settings, samples, on_error)
        writer = StoreWriter(partial, format, progress, sums)
        with closing(writer), _reporting_interruptions(partial):
            _write_images(writer, samples, workers, chunk_images, save_seconds)
            _refuse_unreadable(progress, target, on_error)
            meta = _finish(writer, samples, workers)
        files.rename_folder(partial, target)
        _tidy(target)
    log.info("%s is ready: %s", target, _contents(meta))
    log.info("written: %s", target.absolute())
    return meta


@contextmanager
def _reporting_interruptions(partial: Path) -> Iterator[None]:
    """After Ctrl-C and on a full disk, report how to continue."""
    try:
        yield
    except KeyboardInterrupt:
        log.info("stopped; repeat the command to continue")
        raise
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise UserError(f"the disk of {partial} is full; free some space and repeat the command to continue") from None


def _settings(name: str, form: Format, samples: Samples) -> dict[str, Any]:
    """The settings that determine the bytes of the files, except `on_error`."""
    libjpeg = features.version_feature("libjpeg_turbo") or features.version_codec("jpg") or "unknown"
    return {
        "version": VERSION,
        "name": name,
        "format": form,
        "transparency": TRANSPARENCY,
        "source_sha256": samples.digest(),
        "software": {"pillow": PIL.__version__, "libjpeg": libjpeg},
    }


def _contents(meta: StoreMeta) -> str:
    counts = ", ".join(f"{count:,} {split}" for split, count in meta.counts.items())
    return counts + (f"; {len(meta.skipped):,} unreadable images are left out" if meta.skipped else "")


def _already_made(target: Path, settings: dict[str, Any], on_error: OnError) -> StoreMeta | None:
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return None
    try:
        meta = open_store(target, settings["name"]).meta
    except UserError as error:
        raise UserError(f"{target} (data.dir) is not empty and contains something else\n{error}") from None
    for key in ("format", "source_sha256"):
        if getattr(meta, key) != settings[key]:
            what = f"of format={meta.format}" if key == "format" else "made of other images"
            raise UserError(
                f"{target} contains a store {what}; delete it first, or choose another folder: data.dir=FOLDER"
            )
    if meta.skipped and on_error == "fail":
        raise UserError(
            f"{target} contains a store without {len(meta.skipped)} images that were unreadable, the first: "
            f"{meta.skipped[0].file}; accept it with on_error=skip, or replace the files and delete it"
        )
    _tidy(target)
    log.info("%s is already complete, made from files of the same names and sizes: %s", target, _contents(meta))
    return meta


def _tidy(target: Path) -> None:
    """Removes auxiliary files, also those left by a kill just after the folder was renamed."""
    for name in (RECORD, LOCK, f"{LOCK}{locks.MARKER}"):
        (target / name).unlink(missing_ok=True)


def _write_images(writer: StoreWriter, samples: Samples, workers: int, chunk_images: int, save_seconds: float) -> None:
    progress = writer.progress
    total = sum(map(len, samples.splits.values()))
    chunks = _chunks(samples, writer.form, progress.samples, chunk_images)
    interval = 0.5 if sys.stderr.isatty() else 10.0
    writer.save()
    saved = time.monotonic()
    with tqdm(
        desc="preparing", total=total, initial=progress.samples, unit=" images", mininterval=interval, smoothing=0.05
    ) as bar:
        for converted in convert_all(chunks, workers):
            writer.append(converted)
            bar.update(converted.samples)
            if time.monotonic() - saved >= save_seconds:
                writer.save()
                saved = time.monotonic()
    writer.save()


def _chunks(samples: Samples, form: Format, done: int, chunk_images: int) -> Iterator[Chunk]:
    """The samples after the first `done`, in chunks."""
    label = {wnid: place for place, wnid in enumerate(samples.wnids)}
    for split, found in samples.splits.items():
        for start in range(min(done, len(found)), len(found), chunk_images):
            part = found[start : start + chunk_images]
            yield Chunk(split, part, [label[sample.wnid] for sample in part], form)
        done = max(0, done - len(found))


def _refuse_unreadable(progress: Progress, target: Path, on_error: OnError) -> None:
    listing = target.with_name(f"{target.name}.unreadable.txt")
    if progress.unreadable and on_error == "fail":
        lines = [f"{file}: {reason}" for file, reason in progress.unreadable]
        files.write(listing, "".join(f"{line}\n" for line in lines).encode(errors="surrogateescape"))
        more = [f"... and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
        raise UserError(
            "\n".join(
                [
                    f"{len(lines)} image files are unreadable; no store was made:",
                    *lines[:SHOWN],
                    *more,
                    f"{listing} lists all of them; replace them, or leave them out with on_error=skip, which "
                    "continues from here",
                ]
            )
        )
    empty = [split for split, count in progress.counts.items() if count == 0]
    if empty:
        raise UserError(f"no {empty[0]} image can be read; the first: {': '.join(progress.unreadable[0])}")
    listing.unlink(missing_ok=True)


def _finish(writer: StoreWriter, samples: Samples, workers: int) -> StoreMeta:
    """Write everything except the images: headers, the mean image, checksums and `meta.json`."""
    progress, folder = writer.progress, writer.folder
    writer.finish()
    mean = statistics.mean_image(writer.sums)
    files.write(folder / MEAN_IMAGE, npy_header("<f4", IMAGE_SHAPE) + mean.astype("<f4").tobytes())
    written = [MEAN_IMAGE, *(name for split in progress.counts for name in split_files(split, writer.form))]
    names = names_by_wnid()
    meta = StoreMeta(
        **progress.settings,
        **statistics.colour(writer.sums)._asdict(),
        classes=[StoreClass(wnid=wnid, name=names.get(wnid, wnid)) for wnid in samples.wnids],
        counts=progress.counts,
        skipped=[Skipped(file=file, reason=reason) for file, reason in progress.unreadable],
        checksum_block_bytes=BLOCK_BYTES,
        checksums=file_checksums(folder, written, workers),
    )
    return write_meta(folder, meta)
