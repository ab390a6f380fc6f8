"""From a split in memory to batches: one gather per micro-batch, without workers and without a loop over samples."""

from collections.abc import Iterator

import numpy as np
import torch

from alexnet_lab.data.dataset import Split
from alexnet_lab.data.sampler import GlobalBatchSampler
from alexnet_lab.data.spec import Batch


class BatchLoader:
    """Iterates over one rank's micro-batches of an epoch: images uint8 [N, C, H, W], labels and samples int64 [N].

    Lightning takes it as it takes a `DataLoader`: at each epoch's start it sets the epoch of `batch_sampler.sampler`.
    There is no attribute `sampler` on purpose: Lightning would take one for a sampler that it may replace.

    Args:
        pin_memory: gather into page-locked memory, for copies to a GPU that run beside the computation.
    """

    def __init__(self, split: Split, batch_sampler: GlobalBatchSampler, pin_memory: bool = False) -> None:
        assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int64)
        assert batch_sampler.sampler.num_samples == len(split.rows)
        self.split = split
        self.batch_sampler = batch_sampler
        self.pin_memory = pin_memory
        self._start = (0, 0)

    def __len__(self) -> int:
        """Micro-batches of a whole epoch, also of one that is entered in its middle."""
        return len(self.batch_sampler)

    def start_at(self, epoch: int, micro_batch: int) -> None:
        """Makes epoch `epoch` begin with its micro-batch number `micro_batch`; all others stay whole."""
        self._start = (epoch, micro_batch)

    def __iter__(self) -> Iterator[Batch]:
        # A generator: Lightning sets the epoch after iter() and before the first next().
        epoch, micro_batch = self._start
        first = micro_batch if epoch == self.batch_sampler.sampler.epoch else 0
        for samples, global_size in self.batch_sampler.micro_batches(first):
            yield self._gather(samples, global_size)

    def _gather(self, samples: np.ndarray, global_size: int) -> Batch:
        rows = self.split.rows[samples]
        images = torch.empty((len(rows), *self.split.images.shape[1:]), dtype=torch.uint8, pin_memory=self.pin_memory)
        # With the default mode NumPy would gather into a buffer first; the rows are in range by construction.
        np.take(self.split.images, rows, axis=0, out=images.numpy(), mode="clip")
        labels = torch.from_numpy(self.split.labels[rows])
        return Batch(images, labels, torch.from_numpy(samples.copy()), global_size)

    def state_dict(self) -> dict[str, int]:
        """Empty, for the position belongs to `ImageDataModule`; tells Lightning that this loader resumes exactly."""
        return {}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Nothing to load, see `state_dict`."""
