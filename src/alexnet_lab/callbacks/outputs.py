"""Keeps a network's outputs for each image of an evaluation, to average several networks.

N images of the split, K classes.
"""

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from alexnet_lab.data.spec import Batch


class Outputs(pl.Callback):
    """Collects the logits and labels of a validation or a test on one device, in the order of the split; see `keep`.

    Kept on the host as float32: 200 MB for ImageNet's validation images.
    """

    def __init__(self, keep: bool = True) -> None:
        self._keep = keep
        self._logits: list[Tensor] = []
        self._labels: list[Tensor] = []

    @property
    def logits(self) -> Tensor:
        """float32 [N, K]"""
        return torch.cat(self._logits)

    @property
    def labels(self) -> Tensor:
        """int64 [N]"""
        return torch.cat(self._labels)

    def has_the_labels_of(self, other: "Outputs") -> bool:
        """Whether both were measured on the same number of images and classes, with the same labels."""
        return torch.equal(self.labels, other.labels) and self._logits[0].shape[1] == other._logits[0].shape[1]

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._keep:
            self._logits.append(outputs.float().cpu())
            self._labels.append(batch.labels.cpu())

    on_test_batch_end = on_validation_batch_end
