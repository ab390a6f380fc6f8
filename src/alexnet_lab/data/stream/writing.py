"""Writes a store as a stream."""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_lab import files
from alexnet_lab.data.store.format import IMAGE_BYTES, JPEGS, StoreMeta, folder_to_make
from alexnet_lab.data.store.images import to_jpeg
from alexnet_lab.data.store.reading import Store, open_store
from alexnet_lab.data.stream.layout import (
    ABOUT,
    CHUNK_IMAGES,
    About,
    inside,
    is_stream,
    is_url,
    litdata,
    stored_order,
)
from alexnet_lab.data.stream.reading import read_about
from alexnet_lab.errors import UserError

log = logging.getLogger(__name__)


def write_stream(folder: Path, place: str, name: str, chunk_images: int = CHUNK_IMAGES) -> None:
    """Writes the store of the dataset `name` in `folder` as a stream to `place`; a finished stream is unchanged.

    A folder gets its name only when it is complete. In a bucket, `about` is written last, and readers require it.

    Raises:
        UserError: LitData is not installed, there is no store, `place` contains something else, or the disk is too
            small.
    """
    litdata()
    store = open_store(folder, name)
    if _made_before(place, store.meta):
        log.info("%s is ready; it was made earlier", place)
        return
    if is_url(place):
        _write(store, place, chunk_images)
    else:
        _write_folder(store, Path(place), chunk_images)
        log.info("written: %s", Path(place).absolute())
    log.info("%s is ready", place)


def check_stream(place: str) -> None:
    """Check that `write_stream` can write to `place`, independent of the store.

    Raises:
        UserError: LitData is not installed, `place` contains something else, or no folder can be created there.
    """
    litdata()
    if not is_stream(place):
        _check_new(Path(place))


def _check_new(target: Path) -> None:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"stream={target} is not empty; choose a new folder")
    above = next(folder for folder in target.absolute().parents if folder.exists())
    try:
        files.try_to_write(above / target.name)
    except OSError as error:
        raise UserError(f"stream={target}: no folder can be made in {above} ({error.strerror})") from error


def _made_before(place: str, meta: StoreMeta) -> bool:
    if not is_stream(place):
        return False
    try:
        found, _ = read_about(place, meta.name)
    except UserError:
        if is_url(place):  # nothing is there yet, or LitData will refuse to write there
            return False
        raise
    # Not `meta_sha256`: it differs between the two formats of a store, whose streams are the same.
    if _contents(found) != _contents(meta):
        raise UserError(f"stream={place} was made from other images; delete it first, or choose another folder")
    return True


def _contents(meta: StoreMeta) -> tuple[Any, ...]:
    return meta.source_sha256, meta.counts, meta.transparency


def _write_folder(store: Store, target: Path, chunk_images: int) -> None:
    _check_new(target)
    target = folder_to_make(target, "stream")
    partial_folder = target.with_name(f"{target.name}.stream-partial")
    shutil.rmtree(partial_folder, ignore_errors=True)
    _check_disk(store, target)
    _write(store, str(partial_folder), chunk_images)
    files.rename_folder(partial_folder, target)


def _check_disk(store: Store, target: Path) -> None:
    needed = sum(_image_bytes(store, split, count) + 64 * count for split, count in store.meta.counts.items())
    disk = next(folder for folder in target.absolute().parents if folder.exists())
    free = shutil.disk_usage(disk).free
    log.info("stream: %.2f GB needed, %.2f GB free on %s", needed / 1e9, free / 1e9, disk)
    if needed > free:
        raise UserError(f"the stream needs {needed / 1e9:.2f} GB of disk, {disk} has {free / 1e9:.2f} GB free")


def _image_bytes(store: Store, split: str, count: int) -> int:
    """Size of the split's JPEGs in bytes; a generous estimate if they are not yet encoded."""
    if store.meta.format == "uint8":
        return count * IMAGE_BYTES // 6
    return (store.folder / split / JPEGS).stat().st_size


def _write(store: Store, place: str, chunk_images: int) -> None:
    for split, count in store.meta.counts.items():
        log.info("%s: %s images", inside(place, split), f"{count:,}")
        record = Records(store.folder, split)
        _optimize(record, stored_order(split, count).tolist(), inside(place, split), chunk_images)
    labels = [store.labels(split) for split in store.meta.counts]
    about = About(
        meta=store.meta.model_dump_json(),
        mean_image=store.mean_image().astype("<f4").tobytes(),
        labels=np.concatenate(labels).astype("<i8").tobytes(),
        chunk_images=chunk_images,
    )
    _optimize(partial(_same, about), [0], inside(place, ABOUT), 1)


@dataclass
class Records:
    """Maps a number in the store to its record; opens the store in each process."""

    folder: Path
    split: str

    @cached_property
    def _images(self) -> Any:
        """The bytes of images by number."""
        store = open_store(self.folder)
        if store.meta.format == "jpeg":
            return store.jpegs(self.split)
        return store.images(self.split)

    @cached_property
    def _labels(self) -> list[int]:
        return open_store(self.folder).labels(self.split).tolist()

    def __call__(self, sample: int) -> dict[str, Any]:
        image = self._images[sample]
        jpeg = image.tobytes() if image.ndim == 1 else to_jpeg(image)
        return {"image": jpeg, "label": self._labels[sample], "sample": sample}


def _same(about: About, _: int) -> dict[str, Any]:
    return dict(about)


def _optimize(record: Any, inputs: list[int], place: str, chunk_images: int) -> None:
    """A single process, which keeps the order; it only copies bytes."""
    with _own_cache():
        try:
            litdata().optimize(
                record,
                inputs,
                place,
                chunk_size=chunk_images,
                num_workers=1,
                reorder_files=False,
                keep_data_ordered=True,
                start_method="spawn",
                verbose=False,
            )
        except RuntimeError as error:
            if "already contains" not in str(error):
                raise
            raise UserError(f"{place} is not empty; delete the stream there, or choose another place") from error


@contextmanager
def _own_cache() -> Iterator[None]:
    """Separate working folders for LitData, which empties them; its default is `chunks` and `data` in /tmp."""
    with tempfile.TemporaryDirectory(prefix="alexnet-lab-stream-") as folder:
        folders = {"DATA_OPTIMIZER_CACHE_FOLDER": "chunks", "DATA_OPTIMIZER_DATA_CACHE_FOLDER": "data"}
        chosen = {name: f"{folder}/{own}" for name, own in folders.items() if name not in os.environ}
        os.environ.update(chosen)
        try:
            yield
        finally:
            for name in chosen:
                del os.environ[name]
