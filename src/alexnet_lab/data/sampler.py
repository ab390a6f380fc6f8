"""The order of the samples and their ranks: a pure function of (seed, epoch), the same for any number of ranks.

The order of an epoch is cut into global batches of `batch_size` samples, one per optimizer step; the last may be
smaller, nothing is dropped and nothing repeated. A global batch is dealt like cards to its
`world_size * accumulate` parts, so that every rank has the same number of micro-batches; a part is empty where the
batch has fewer samples than parts. Where samples are mixed in pairs, positions 2i and 2i + 1 of a global batch are
dealt together, so that a pair is never split.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# One stream per use, so that equal seeds in different uses give independent numbers.
ORDER_STREAM = 0
SPLIT_STREAM = 1
CHUNK_STREAM = 2
PLACE_STREAM = 3


def random_order(num_samples: int, seed: int, epoch: int = 0, stream: int = ORDER_STREAM) -> NDArray[np.int64]:
    """A permutation of `range(num_samples)`, determined only by the arguments; 1.28 million samples take 0.2 s.

    Sorts the raw words of a Philox generator keyed by (seed, epoch): NumPy keeps the words of its bit generators the
    same in every version, and does not promise that of `Generator.permutation` (NEP 19).
    """
    words = np.random.Philox(
        key=np.array([seed, epoch], dtype=np.uint64), counter=np.array([0, 0, 0, stream], dtype=np.uint64)
    )
    return np.argsort(words.random_raw(num_samples), kind="stable")


class Part(NamedTuple):
    """A rank's micro-batch of a global batch."""

    samples: NDArray[np.int64]
    """[N], N >= 0"""
    global_size: int
    """Samples of the whole global batch."""
    global_weight: float | None = None
    """The sum of their weights, if they have weights."""


def dealt(number: int, part: int, num_parts: int, together: int) -> NDArray[np.int64]:
    """The positions in a batch of `number` samples that one of `num_parts` parts gets, `together` at a time; int64."""
    if together == 1:
        return np.arange(part, number, num_parts)
    first = np.arange(part * together, number, num_parts * together)
    positions = (first[:, None] + np.arange(together)).ravel()
    return positions[positions < number]


class EpochOrder:
    """The order of the current epoch: shuffled by (seed, epoch), or ascending.

    With `chunks`, int64 [num_samples], samples of one chunk follow each other, for chunks that are fetched one by one:
    the chunks come in shuffled order, and the samples of each in shuffled order; or both ascending.
    """

    def __init__(
        self, num_samples: int, seed: int = 0, shuffled: bool = False, chunks: NDArray[np.int64] | None = None
    ) -> None:
        self.num_samples = num_samples
        self.seed = seed
        self.shuffled = shuffled
        self.chunks = chunks
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this at each epoch's start."""
        self.epoch = epoch

    def order(self) -> NDArray[np.int64]:
        """[num_samples], each of `range(num_samples)` once."""
        order = self._order(self.num_samples, ORDER_STREAM)
        if self.chunks is None:
            return order
        turns = self._order(int(self.chunks.max()) + 1, CHUNK_STREAM)
        return order[np.argsort(turns[self.chunks[order]], kind="stable")]

    def _order(self, number: int, stream: int) -> NDArray[np.int64]:
        return random_order(number, self.seed, self.epoch, stream) if self.shuffled else np.arange(number)


class GlobalBatchSampler:
    """One rank's micro-batches of each epoch: `accumulate` of them for every global batch of `batch_size` samples.

    Over ranks and micro-batches, those of an optimizer step together are exactly its global batch. `together`: 2 deals
    pairs. `weights`, float64 [num_samples], are summed over each global batch. `whole`, for evaluation: the ranks take
    turns, a batch is one rank's, composed as on a single rank, and empty on the others.
    """

    def __init__(
        self,
        sampler: EpochOrder,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        accumulate: int = 1,
        together: int = 1,
        weights: NDArray[np.float64] | None = None,
        whole: bool = False,
    ) -> None:
        assert 0 <= rank < world_size
        assert not (whole and accumulate > 1)
        self.sampler = sampler
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        self.accumulate = accumulate
        self.together = together
        self.weights = weights
        self.whole = whole

    def __len__(self) -> int:
        """Micro-batches per epoch, the same on every rank."""
        return -(-self.sampler.num_samples // self.batch_size) * self.accumulate

    def micro_batches(self, first: int = 0) -> Iterator[Part]:
        """The epoch's micro-batches from number `first` on."""
        order = self.sampler.order()
        num_parts = self.world_size * self.accumulate
        for number in range(first, len(self)):
            step, micro_batch = divmod(number, self.accumulate)
            batch = order[step * self.batch_size : (step + 1) * self.batch_size]
            if self.whole:
                positions = np.arange(len(batch) if step % self.world_size == self.rank else 0)
            else:
                positions = dealt(len(batch), micro_batch * self.world_size + self.rank, num_parts, self.together)
            # Summed in the order of the global batch: the same to the last bit on every rank.
            weight = None if self.weights is None else float(self.weights[batch].sum())
            yield Part(batch[positions], len(batch), weight)
