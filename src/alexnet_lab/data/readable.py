"""Finds image files that cannot be read before training: by decoding each once, or by their headers.

Images that were decoded without an error are recorded in `$XDG_CACHE_HOME/alexnet_lab/readable` (`~/.cache` by
default), one file per folder of images, as 8 bytes per image: a hash of its path, size and modification time. The
next start decodes only images that are not recorded. Unreadable files are never recorded, so they are tried again.
"""

import hashlib
import io
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from alexnet_lab import files
from alexnet_lab.data.encoded import ImageFiles
from alexnet_lab.data.image_kinds import FORMATS, unidentified
from alexnet_lab.data.jpeg_markers import jpeg_shape
from alexnet_lab.data.sources.blobs import Blob, reason_of
from alexnet_lab.data.store.images import DECODERS, MAX_BYTES, MAX_PIXELS
from alexnet_lab.errors import UserError

log = logging.getLogger(__name__)

PER_JOB = 64
"""Number of files per task of a thread."""
HEADER_SECONDS = 30.0
"""Time limit for all headers; on a local disk it suffices for a million files."""
HEADS = (4096, 2**17, MAX_BYTES)
"""Numbers of bytes at the start of a file that are searched for its header, in this order."""


T = TypeVar("T")


class Unread(NamedTuple):
    """An image file that cannot be read."""

    file: str
    """`split/class/name`"""
    reason: str


Images = Sequence[tuple[str, Blob]]
"""`split/class/file`, and the location of its bytes."""


def without_header(images: Images) -> list[Unread]:
    """The files that are missing, empty, not images, or cut off before the image's size.

    Stops after `HEADER_SECONDS`, for slow file systems, and logs how many files were checked.
    """
    deadline = time.monotonic() + HEADER_SECONDS

    def check(part: Images) -> tuple[int, list[Unread]]:
        if time.monotonic() > deadline:
            return 0, []
        return len(part), [Unread(name, reason) for name, blob in part if (reason := _header_fault(blob))]

    checked, found = 0, []
    for number, unread in _in_threads(check, images):
        checked += number
        found += unread
    if checked < len(images):
        log.info("checked %s of %s image headers in %.0f s", f"{checked:,}", f"{len(images):,}", HEADER_SECONDS)
    return sorted(found)


def undecodable(folder: Path, images: Images) -> list[Unread]:
    """The images of `folder` that cannot be decoded. Decodes like training; skips images in the cache."""
    cache = _cache_file(folder)
    kept = _kept(cache)
    keys: list[NDArray[np.uint64]] = []

    def check(part: Images) -> tuple[NDArray[np.uint64], list[Unread]]:
        found = np.array([_key(blob) for _, blob in part], np.uint64)
        faults = ["" if known else _fault(blob) for (_, blob), known in zip(part, _among(found, kept), strict=True)]
        unread = [Unread(name, reason) for (name, _), reason in zip(part, faults, strict=True) if reason]
        return found[[not reason for reason in faults]], unread

    unreadable = []
    stopped = [kept]  # kept if the check is interrupted
    try:
        with tqdm(desc="checking images", total=len(images), unit=" images", delay=2) as bar:
            for readable, unread in _in_threads(check, images):
                keys.append(readable)
                unreadable += unread
                bar.update(len(readable) + len(unread))
        stopped.clear()
    finally:
        now = np.unique(np.concatenate([np.empty(0, np.uint64), *stopped, *keys]))
        if not np.array_equal(now, kept):
            _keep(cache, now)
    return sorted(unreadable)


def _in_threads(work: Callable[[Images], T], images: Images) -> Iterator[T]:
    """The results of `work` for each part of `images`, in any order; reading and decoding release the GIL."""
    with ThreadPoolExecutor(4 * (os.cpu_count() or 1)) as pool:
        jobs: list[Future[T]] = [
            pool.submit(work, images[start : start + PER_JOB]) for start in range(0, len(images), PER_JOB)
        ]
        try:
            for job in as_completed(jobs):
                yield job.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _fault(blob: Blob) -> str:
    """The reason why an image cannot be decoded; empty if it can."""
    try:
        ImageFiles([blob]).window(0, 0, 0, 1, 1)
    except UserError as error:
        return reason_of(cause) if isinstance(cause := error.__cause__, Exception) else str(error)
    return ""


def _header_fault(blob: Blob) -> str:
    """The reason why an image's header cannot be read; empty if it can."""
    if blob.size > MAX_BYTES:
        return f"{blob.size:,} bytes, at most {MAX_BYTES:,} are read"
    try:
        for number in HEADS:
            head = blob.start(number)
            shape = jpeg_shape(head) or _size(head)
            if shape is not None:
                return "" if shape[0] * shape[1] <= MAX_PIXELS else f"{shape[1]} x {shape[0]} pixels are too many"
            if len(head) == blob.size:
                break
    except OSError as error:
        return reason_of(error)
    return unidentified(head, ", or cut off in its header")


def _size(head: bytes) -> tuple[int, int] | None:
    """Height and width; None if Pillow does not find them in these bytes."""
    try:
        with Image.open(io.BytesIO(head), formats=FORMATS) as image:
            return image.height, image.width
    except Image.DecompressionBombError:
        return MAX_PIXELS, 2
    except Exception:  # Pillow raises almost any exception for damaged files
        return None


def _key(blob: Blob) -> int:
    """A hash that changes with the file; any number if the file is missing."""
    changed = 0
    with suppress(OSError):
        changed = os.stat(blob.file).st_mtime_ns
    text = f"{os.path.abspath(blob.file)}\0{blob.offset}\0{blob.size}\0{changed}".encode(errors="surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def _among(keys: NDArray[np.uint64], kept: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which of the keys are in `kept`, which is ascending. `np.isin` would sort it at each call."""
    places = np.searchsorted(kept, keys)
    return np.append(kept, np.uint64(0))[places] == keys if len(kept) else np.zeros(len(keys), np.bool_)


def _cache_file(folder: Path) -> Path | None:
    """None if there is no home folder. Each version of the decoders has its own file."""
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return None
    text = f"{folder.resolve()}\n{DECODERS}"
    digest = hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
    return home / "alexnet_lab" / "readable" / f"{digest[:16]}.npy"


def _kept(cache: Path | None) -> NDArray[np.uint64]:
    """The keys in the cache, ascending; empty if it is missing or damaged."""
    with suppress(OSError, ValueError, EOFError):
        keys = np.load(cache, allow_pickle=False) if cache else None
        if keys is not None and keys.dtype == np.uint64 and keys.ndim == 1:
            return keys
    return np.empty(0, np.uint64)


def _keep(cache: Path | None, keys: NDArray[np.uint64]) -> None:
    """Write the cache; a failure costs only time and is logged."""
    if cache is None:
        return
    data = io.BytesIO()
    np.save(data, keys)
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        files.write(cache, data.getvalue())
        log.info("written: %s", cache)
    except OSError as error:
        log.warning("the list of readable images cannot be saved (%s); the next start decodes all images again", error)
