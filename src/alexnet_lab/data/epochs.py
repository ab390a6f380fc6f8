"""Single training images as the network gets them in the epochs of a run.

N samples, C channels, S the network's input size.
"""

import numpy as np
from numpy.typing import NDArray

from alexnet_lab.data.loader import BatchLoader
from alexnet_lab.data.module import ImageDataModule
from alexnet_lab.data.sampler import EpochOrder, GlobalBatchSampler
from alexnet_lab.data.spec import Batch


class Epochs:
    """The training images of `data` in each epoch of a run; `shuffled` is False where a run overfits a few batches.

    Nothing but the wanted images, and those mixed with them, is read.
    """

    def __init__(self, data: ImageDataModule, shuffled: bool = True) -> None:
        self._data = data
        loader = data.train_dataloader()
        loader.workers = 0
        self._order = loader.batch_sampler.sampler
        self._order.shuffled = shuffled
        self._training = loader
        split = loader.split
        whole = GlobalBatchSampler(EpochOrder(len(split.rows)), data.batch_size)
        self._evaluation = BatchLoader(split, whole, data.evaluation_views())

    def first(self, number: int) -> NDArray[np.int64]:
        """The samples with which training begins, int64 [N]: at most `number`."""
        return self._ordered(0)[:number]

    def evaluated(self, sample: int) -> Batch:
        """The sample as an evaluation sees it: float32 [1, C, S, S]."""
        return self._data.on_after_batch_transfer(self._evaluation.only(np.array([sample]), 0), 0)

    def trained(self, sample: int, epoch: int) -> tuple[Batch, int]:
        """A batch that contains the sample as the network gets it in `epoch`, from 0, and its position in the batch.

        Images that are mixed come as a pair.
        """
        samples, place = np.array([sample]), 0
        if self._data.mixing:
            order = self._ordered(epoch)
            position = int(np.flatnonzero(order == sample)[0])
            start = position // self._data.batch_size * self._data.batch_size
            place = (position - start) % 2
            # Pairs are two positions of a global batch; the last of an odd number has no partner.
            pair = position - place
            samples = order[pair : min(pair + 2, start + self._data.batch_size)]
        return self._data.on_after_batch_transfer(self._training.only(samples, epoch), 0), place

    def _ordered(self, epoch: int) -> NDArray[np.int64]:
        self._order.set_epoch(epoch)
        return self._order.order()
