"""From a split to batches: one buffer per micro-batch, filled in advance by threads if the split benefits from them."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray

from alexnet_lab import machine
from alexnet_lab.data.dataset import Split
from alexnet_lab.data.draws import Augmentation, Views, draw
from alexnet_lab.data.gather import Buffers, gather
from alexnet_lab.data.sampler import GlobalBatchSampler, Part
from alexnet_lab.data.spec import Batch, Mixture

AHEAD = 3
"""Batches that are gathered before they are needed, whatever the number of threads: it bounds the memory."""

FEWEST, MOST = 2, 12
"""Default number of threads: two share even two cores well with the network; twelve decode 30,000 JPEGs per second."""
MOST_FOR_PIXELS = 4
"""The same for a uint8 store on a GPU: twelve slow down the thread that launches its kernels (docs/gpu.md)."""

Prefetch = Callable[[Iterable[Batch]], Iterator[Batch]]

Mix = Callable[[int, int, NDArray[np.int64], NDArray[np.int64]], Mixture]
"""`Mixing.draw` for images of one size."""

Copies = list[Future[None]]
"""What still has to be copied into a batch's buffer, in order."""


def default_workers(local_ranks: int, few: bool = False) -> int:
    """Prefetching threads for one of `local_ranks` ranks on this machine: its cores, except one for the network.

    `few`: the images are stored pixels, and the network is on a GPU.
    """
    cores = len(machine.cores())
    # Where Slurm has bound each rank to cores of its own, only the number of threads shows how many.
    own = min(cores, max(cores // local_ranks, torch.get_num_threads()))
    return min(max(own - 1, FEWEST), MOST_FOR_PIXELS if few else MOST)


class BatchLoader:
    """Iterates over one rank's micro-batches of an epoch: images uint8 [N, C, H, W], labels and samples int64 [N].

    Lightning treats it like a `DataLoader`: at the start of each epoch, it sets the epoch of `batch_sampler.sampler`.
    There is deliberately no attribute `sampler`, because Lightning would replace it.

    Args:
        augmentation: draws the crop and augmentation of each image, so H and W are those of the window; None uses the
            stored images unchanged.
        workers: prefetching threads, at most `AHEAD` batches ahead; above that number, several share a batch. 0 gathers
            on demand. The batches and their order do not depend on it.
        pin_memory: gather into page-locked memory, so that copies to a GPU overlap with computation.
        prefetch: what becomes of the epoch's batches before they are yielded, see `prefetched`; None: nothing.
        mix: draws how pairs of samples are mixed; None: they are not.
    """

    def __init__(
        self,
        split: Split,
        batch_sampler: GlobalBatchSampler,
        augmentation: Augmentation | None = None,
        workers: int = 0,
        pin_memory: bool = False,
        prefetch: Prefetch | None = None,
        mix: Mix | None = None,
    ) -> None:
        assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int64)
        assert batch_sampler.sampler.num_samples == len(split.rows)
        # Windows of images in memory are not cut out.
        assert augmentation is None or augmentation.crop_size is None or not isinstance(split.images, np.ndarray)
        self.split = split
        self.batch_sampler = batch_sampler
        self.augmentation = augmentation
        self.workers = workers
        self.prefetch = prefetch
        self._mix = mix
        self._buffers = Buffers(pin_memory)
        self._start = (0, 0)

    def __len__(self) -> int:
        """Micro-batches of a whole epoch, also if the epoch is continued in the middle."""
        return len(self.batch_sampler)

    def start_at(self, epoch: int, micro_batch: int) -> None:
        """Makes epoch `epoch` begin with micro-batch number `micro_batch`; other epochs are unaffected."""
        self._start = (epoch, micro_batch)

    def only(self, samples: NDArray[np.int64], epoch: int) -> Batch:
        """The batch of these samples, int64 [N], as they are in `epoch`; those of a mixed pair follow each other."""
        assert self.workers == 0
        return self._begin(Part(samples, len(samples)), epoch)[0]

    def __iter__(self) -> Iterator[Batch]:
        # A generator: Lightning sets the epoch after iter() and before the first next().
        torch.get_num_threads()  # settled for this thread before the workers change the number of new threads
        with closing(self._gathered()) as batches:
            yield from self.prefetch(batches) if self.prefetch else batches

    def _gathered(self) -> Generator[Batch]:
        epoch = self.batch_sampler.sampler.epoch
        first = self._start[1] if epoch == self._start[0] else 0
        micro_batches = self.batch_sampler.micro_batches(first)
        if self.workers == 0:
            for part in micro_batches:
                yield self._begin(part, epoch)[0]
            return
        # Torch's own threads would multiply ours. Its setting is per thread.
        pool = ThreadPoolExecutor(self.workers, "gather", torch.set_num_threads, (1,))
        try:
            jobs = (pool.submit(self._begin, part, epoch, pool) for part in micro_batches)
            ahead: deque[Future[tuple[Batch, Copies]]] = deque(islice(jobs, AHEAD))
            while ahead:
                batch, copies = ahead.popleft().result()
                for copy in copies:
                    copy.result()
                ahead.extend(islice(jobs, 1))
                yield batch
        finally:  # also if the epoch is left early
            pool.shutdown(wait=True, cancel_futures=True)

    def _begin(self, part: Part, epoch: int, pool: ThreadPoolExecutor | None = None) -> tuple[Batch, Copies]:
        """The batch, whose images are complete after the copies that were given to the other threads of `pool`."""
        samples, images = part.samples, self.split.images
        rows = self.split.rows[samples]
        labels = self.split.labels[rows]
        make = partial(
            Batch,
            labels=torch.from_numpy(labels),
            samples=torch.from_numpy(samples.copy()),
            global_size=part.global_size,
            mixture=self._mix and self._mix(self.batch_sampler.sampler.seed, epoch, samples, labels),
            global_weight=part.global_weight,
        )
        corners, size, draws = self._draw(samples, epoch)
        if isinstance(images, np.ndarray):
            return self._pinned(make(images=self._take(images, rows), draws=draws)), []
        buffer = self._buffers.take(len(rows), *size, images.shape[1])
        shares = -(-self.workers // AHEAD) or 1
        first, *others = (
            slice(len(rows) * share // shares, len(rows) * (share + 1) // shares) for share in range(shares)
        )
        copies = [pool.submit(gather, images, rows[some], corners[some], buffer[some]) for some in others if pool]
        gather(images, rows[first], corners[first], buffer[first])
        return self._pinned(make(images=buffer.permute(0, 3, 1, 2), draws=draws)), copies

    def _pinned(self, batch: Batch) -> Batch:
        """In page-locked memory, whose copy to a GPU never waits for the GPU; the images are in it already."""
        if not self._buffers.pin_memory:
            return batch
        return batch.each(lambda tensor: tensor if tensor is batch.images else tensor.pin_memory())

    def _draw(self, samples: NDArray[np.int64], epoch: int) -> Views:
        stored = self.split.images.shape[2:]
        if self.augmentation is None:
            return Views.whole(len(samples), stored)
        return draw(self.augmentation, stored, self.batch_sampler.sampler.seed, epoch, samples)

    def _take(self, stored: NDArray[np.uint8], rows: NDArray[np.int64]) -> torch.Tensor:
        images = self._buffers.take(len(rows), *stored.shape[1:])
        # With the default mode NumPy would gather into a buffer first; the rows are in range by construction.
        np.take(stored, rows, axis=0, out=images.numpy(), mode="clip")
        return images

    def state_dict(self) -> dict[str, int]:
        """Empty: `ImageDataModule` stores the position. The method shows Lightning that this loader can resume."""
        return {}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Nothing to load, see `state_dict`."""
