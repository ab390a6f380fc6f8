"""Checksums of files per block, computed by several threads: `hashlib` releases the GIL."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from alexnet_lab.data.store.format import Checksums

BLOCK_BYTES = 64 * 2**20
PIECE_BYTES = 2**20


def file_checksums(folder: Path, files: list[str], workers: int) -> dict[str, Checksums]:
    """The checksums by path; shows progress on standard error."""
    sizes = {name: (folder / name).stat().st_size for name in files}
    blocks = [(name, start) for name in files for start in range(0, sizes[name], BLOCK_BYTES)]
    digests: dict[str, list[str]] = {name: [] for name in files}
    for (name, _), digest in zip(blocks, _digests(folder, blocks, sum(sizes.values()), workers), strict=True):
        digests[name].append(digest)
    return {name: Checksums(bytes=sizes[name], blocks=digests[name]) for name in files}


def _digests(folder: Path, blocks: list[tuple[str, int]], total: int, workers: int) -> Iterator[str]:
    with (
        tqdm(desc="checksums", total=total, unit="B", unit_scale=True, delay=1) as bar,
        ThreadPoolExecutor(workers) as pool,
    ):
        for digest, size in pool.map(lambda block: _digest(folder / block[0], block[1]), blocks):
            bar.update(size)
            yield digest


def _digest(path: Path, start: int) -> tuple[str, int]:
    digest, done = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        while done < BLOCK_BYTES and (piece := file.read(min(PIECE_BYTES, BLOCK_BYTES - done))):
            digest.update(piece)
            done += len(piece)
    return digest.hexdigest(), done
