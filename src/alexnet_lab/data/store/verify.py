"""Compares a store with its checksums."""

import os
from pathlib import Path

from alexnet_lab.data.store.checksums import BLOCK_BYTES, file_checksums
from alexnet_lab.data.store.format import META, StoreMeta
from alexnet_lab.data.store.reading import open_store
from alexnet_lab.errors import UserError


def verify(folder: Path, name: str | None = None, workers: int | None = None) -> StoreMeta:
    """Reads the whole store in `folder` and compares it with its checksums; `workers` threads, by default one per core.

    Raises:
        UserError: names every file and block that differs; or see `open_store`.
    """
    workers = (os.cpu_count() or 1) if workers is None else workers
    if workers < 1:
        raise UserError(f"workers must be at least 1, got {workers}")
    meta = open_store(folder, name).meta
    if meta.digest() != meta.meta_sha256:
        raise UserError(f"{folder / META} is damaged: its checksum differs")
    if meta.checksum_block_bytes != BLOCK_BYTES:
        raise UserError(f"{folder / META}: blocks of {meta.checksum_block_bytes} bytes, expected {BLOCK_BYTES}")
    found = file_checksums(folder, list(meta.checksums), workers)
    damaged = [
        f"{folder / file} is damaged in block {block} (bytes {block * BLOCK_BYTES:,} to "
        f"{min((block + 1) * BLOCK_BYTES, expected.bytes) - 1:,})"
        for file, expected in meta.checksums.items()
        for block, digest in enumerate(found[file].blocks)
        if expected.blocks[block : block + 1] != [digest]
    ]
    if damaged:
        raise UserError("\n".join([*damaged, f"delete {folder} and prepare it again"]))
    return meta
