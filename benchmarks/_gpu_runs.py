"""Data and runs of the real command for benchmarks/gpu.py."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _device import trainer_on
from _photographs import data_module
from _report import ROOT
from store_scale import sparse_store
from torch import Tensor

from alexnet_lab.data.store.format import IMAGE_BYTES, NPY_HEADER_BYTES, PIXELS


@contextmanager
def random_store(images: int) -> Iterator[Path]:
    """A uint8 store of noise, in memory where the system has a file system there."""
    memory = Path("/dev/shm")
    enough = memory.is_dir() and shutil.disk_usage(memory).free > 2 * images * IMAGE_BYTES
    with tempfile.TemporaryDirectory(dir=memory if enough else None) as folder:
        store = sparse_store(Path(folder) / "store", images)
        block = np.random.default_rng(0).integers(0, 256, (min(images, 256), IMAGE_BYTES), np.uint8)
        with (store / "train" / PIXELS).open("r+b") as file:
            file.seek(NPY_HEADER_BYTES)
            for first in range(0, images, len(block)):
                file.write(block[: images - first].data)
        yield store


def photographs(folder: Path, images: int) -> Path:
    """A folder of smooth random JPEGs of ImageNet's typical size, 500 x 375, in two classes."""
    from PIL import Image

    def write(place: int) -> None:
        path = folder / f"class{place % 2}" / f"{place:05}.jpg"
        if path.exists():
            return
        path.parent.mkdir(exist_ok=True)
        coarse = np.random.default_rng(place).integers(0, 256, (24, 32, 3), np.uint8)
        Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC).save(path, quality=95)

    with ThreadPoolExecutor() as pool:
        list(pool.map(write, range(images)))
    return folder


def batches_on(device: str, store: Path, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of our data module, prepared on the device; its loader asks the trainer for the device."""
    module = data_module("imagenet", store, batch_size=batch_size)
    module.trainer = trainer_on(device)
    for host in module.train_dataloader():
        batch = module.transfer_batch_to_device(host, torch.device(device), 0)
        batch = module.on_after_batch_transfer(batch, 0)
        yield batch.images, batch.labels


def on(device: str, store: Path, batch_size: int) -> tuple[str, ...]:
    """Settings of a run that only trains, for one epoch."""
    precision = ("trainer=gpu", "trainer.precision=bf16-mixed") if device == "cuda" else ("trainer=cpu",)
    data = (f"data.dir={store}", f"data.batch_size={batch_size}", "trainer.max_epochs=1", "trainer.limit_val_batches=0")
    return (*data, *precision, "logger=none", "test_on=none", "callbacks.pictures=null", "checkpoints=none")


def watched_run(callback: str, first: int, steps: int, *choices: str) -> dict[str, Any]:
    """What a callback of `_callbacks.py` has found in a run of the real command."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "found.json"
        options = f"file: {file}, first: {first}, steps: {steps}"
        command = [
            *(sys.executable, "src/train.py", *choices, f"hydra.run.dir={folder}/run"),
            f"trainer.limit_train_batches={first + steps + 2}",
            f"+callbacks.watch={{_target_: benchmarks._callbacks.{callback}, {options}}}",
        ]
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
        ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        if ended.returncode:
            raise RuntimeError(ended.stderr[-2000:])
        found: dict[str, Any] = json.loads(file.read_text())
        return found
