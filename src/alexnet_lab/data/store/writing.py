"""An unfinished store: files that only grow, and a record of their valid lengths.

The record is replaced atomically, after the files' bytes are on the disk. When the work is continued, bytes beyond the
recorded lengths are cut off, so a kill at any moment is harmless.
"""

import io
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np

from alexnet_lab import files
from alexnet_lab.data.store import statistics
from alexnet_lab.data.store.converting import Converted
from alexnet_lab.data.store.format import (
    IMAGE_SHAPE,
    JPEGS,
    LABELS,
    NPY_HEADER_BYTES,
    OFFSETS,
    PIXELS,
    Format,
    npy_header,
    split_files,
)
from alexnet_lab.data.store.progress import RECORD, Progress
from alexnet_lab.errors import UserError


class StoreWriter:
    """Appends converted chunks to the files in `folder`, continuing at the recorded lengths.

    Raises:
        UserError: the files are shorter than recorded.
    """

    def __init__(self, folder: Path, form: Format, progress: Progress, sums: statistics.Sums) -> None:
        self.folder = folder
        self.form = form
        self.progress = progress
        self.sums = sums
        self._files = {name: self._open(name) for split in progress.counts for name in split_files(split, form)}

    def append(self, chunk: Converted) -> None:
        split = chunk.split
        if self.form == "uint8":
            self._files[f"{split}/{PIXELS}"].write(chunk.images.data)
        else:
            jpegs = self._files[f"{split}/{JPEGS}"]
            ends = jpegs.tell() + np.cumsum(chunk.lengths, dtype="<i8")
            self._files[f"{split}/{OFFSETS}"].write(ends.tobytes())
            jpegs.write(chunk.images.data)
        self._files[f"{split}/{LABELS}"].write(np.array(chunk.labels, "<i8").tobytes())
        self.progress.counts[split] += len(chunk.labels)
        self.progress.samples += chunk.samples
        self.progress.unreadable += chunk.unreadable
        if chunk.sums:
            self.sums += chunk.sums

    def save(self) -> None:
        """Flushes everything appended so far to the disk."""
        for name, file in self._files.items():
            file.flush()
            files.sync(file.fileno())
            self.progress.sizes[name] = file.tell()
        record = io.BytesIO()
        np.savez(record, progress=self.progress.model_dump_json(), pixels=self.sums.pixels, products=self.sums.products)
        files.write(self.folder / RECORD, record.getvalue())

    def finish(self) -> None:
        """Saves, and writes the headers of the arrays; can be repeated."""
        self.save()
        for split, count in self.progress.counts.items():
            self._write_header(f"{split}/{LABELS}", "<i8", (count,))
            if self.form == "uint8":
                self._write_header(f"{split}/{PIXELS}", "|u1", (count, *IMAGE_SHAPE))
            else:
                self._write_header(f"{split}/{OFFSETS}", "<i8", (count + 1,))
            files.sync_folder(self.folder / split)

    def close(self) -> None:
        for file in self._files.values():
            with suppress(OSError):  # a full disk: unsaved data will be cut off anyway
                file.close()

    def _open(self, name: str) -> BinaryIO:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
        file = path.open("r+b")
        size = self.progress.sizes.get(name, 0)
        if path.stat().st_size < size:
            raise UserError(f"{path} has become shorter; delete {self.folder} to start over")
        file.truncate(size)
        file.seek(size)
        if size == 0 and name.endswith(".npy"):
            file.write(bytes(NPY_HEADER_BYTES))
            if name.endswith(OFFSETS):
                file.write(bytes(8))  # the first image's offset
        return file

    def _write_header(self, name: str, dtype: str, shape: tuple[int, ...]) -> None:
        file = self._files[name]
        end = file.tell()
        file.seek(0)
        file.write(npy_header(dtype, shape))
        file.seek(end)
        file.flush()
        files.sync(file.fileno())
