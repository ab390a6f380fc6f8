"""Callbacks for the real command, `+callbacks.NAME={_target_: benchmarks._callbacks.NAME, ...}`: what a run does.

Each writes a JSON file at the end of the training. Counted in steps of the first epoch.
"""

import json
import warnings
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from benchmarks._device import Mark


class Clock(pl.Callback):
    """`images_per_second` of `steps` training steps after the first `first`, as a user waits for them."""

    def __init__(self, file: str, first: int, steps: int) -> None:
        self._file, self._first, self._steps = Path(file), first, steps
        self._images = 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._first <= batch_idx < self._first + self._steps:
            self._images += batch.global_size
        if batch_idx == self._first - 1:
            self._start = Mark(pl_module.device.type)
        elif batch_idx == self._first + self._steps - 1:
            seconds = Mark(pl_module.device.type).seconds_since(self._start)
            self._file.write_text(json.dumps({"images_per_second": self._images / seconds}))


class Waits(pl.Callback):
    """`synchronisations`: how often the host waited for the device in `steps` steps after the first `first`, by place.

    Also `steps`, how many were watched; `control`, the waits that were seen of one made on purpose; `kept`, the bytes
    on the device after the last batch of the validation less those after its first; and `batch`, the bytes of the
    largest batch of validation images.
    """

    def __init__(self, file: str, first: int, steps: int) -> None:
        self._file, self._first, self._steps = Path(file), first, steps
        self._watching = ExitStack()
        self._seen: list[warnings.WarningMessage] = []
        self._memory: list[int] = []
        self._found: dict[str, Any] = {"steps": 0, "batch": 0}

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.current_epoch == 0 and batch_idx == self._first:
            self._watch(pl_module.device.type)
        elif trainer.current_epoch == 0 and batch_idx == self._first + self._steps:
            self._watching.close()
            self._found["steps"] = self._steps

    def _watch(self, device: str) -> None:
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("warn")
            self._watching.callback(torch.cuda.set_sync_debug_mode, "default")
        seen = self._watching.enter_context(warnings.catch_warnings(record=True))
        assert seen is not None
        self._seen = seen
        warnings.simplefilter("always")
        if device == "cuda":
            torch.zeros((), device=device).item()  # the control

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._found["batch"] = max(self._found["batch"], batch.images.nbytes)
        if pl_module.device.type == "cuda":
            self._memory.append(torch.cuda.memory_allocated())

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._watching.close()
        waits = [one for one in self._seen if "synchronizing CUDA operation" in str(one.message)]
        ours = [one for one in waits if Path(one.filename).name != Path(__file__).name]
        places = Counter(f"{Path(one.filename).name}:{one.lineno}" for one in ours)
        self._found["control"] = len(waits) - len(ours)
        kept = self._memory[-1] - self._memory[0] if self._memory else 0
        self._file.write_text(json.dumps(self._found | {"synchronisations": places, "kept": kept}))
