"""Keeps what a network predicted for each image of an evaluation.

N images of the split.
"""

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from alexnet_lab.data.spec import Batch
from alexnet_lab.distributed import replica

Keep = Callable[[Tensor, Tensor], dict[str, Tensor]]
"""From the logits [n, K] and labels int64 [n] of a batch, on the device, to what is kept of each image, [n, ...]."""


class Outputs(pl.Callback):
    """Collects `samples` and `labels` of a validation or a test, and what `keep` returns; without it nothing.

    At the end `kept` has, on the host and in the order of the split, each image of all ranks once; on ranks other than
    0 it is empty. All ranks take part in the exchange.
    """

    def __init__(self, keep: Keep | None) -> None:
        self._keep = keep
        self._room: dict[str, Tensor] = {}
        self._filled = 0
        self.kept: dict[str, Tensor] = {}
        """Tensors [N, ...] by name."""

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if not self._keep:
            return
        part = {"samples": batch.samples, "labels": batch.labels, **self._keep(outputs, batch.labels)}
        if not self._room:
            # One allocation: small tensors of every batch would keep the large ones between them from being reused.
            batches = trainer.num_test_batches if trainer.testing else trainer.num_val_batches
            size = int(batches[0]) * batch.global_size
            self._room = {name: torch.empty(size, *one.shape[1:], dtype=one.dtype) for name, one in part.items()}
        end = self._filled + len(batch.labels)
        for name, values in part.items():
            self._room[name][self._filled : end] = values
        self._filled = end

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._room:
            return
        rank, replicas = replica(trainer)
        mine = {name: values[: self._filled] for name, values in self._room.items()}
        self._room, self._filled = {}, 0
        parts: list[Any] = [mine]
        if replicas > 1:
            mine = {name: values.clone() for name, values in mine.items()}  # of a view, all of it would be sent
            parts = [None] * replicas
            torch.distributed.gather_object(mine, None if rank else parts)
        if rank == 0:
            whole = {name: torch.cat([part[name] for part in parts]) for name in mine}
            order = whole["samples"].argsort()
            self.kept = {name: values[order] for name, values in whole.items()}

    on_test_batch_end = on_validation_batch_end
    on_test_epoch_end = on_validation_epoch_end
