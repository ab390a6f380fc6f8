import numpy as np
import torch
from tests.counting import calls

from alexnet_lab.data.dataset import Split
from alexnet_lab.data.loader import BatchLoader
from alexnet_lab.data.sampler import EpochOrder, GlobalBatchSampler


def loader(num_samples=23, batch_size=6, rank=0, world_size=1, accumulate=1, side=2, shuffled=True):
    rows = np.arange(num_samples)[::-1] + 3  # the split's samples are stored in reverse, after three other images
    pixels = np.arange(num_samples + 3, dtype=np.uint8)
    images = np.broadcast_to(pixels[:, None, None, None], (num_samples + 3, 1, side, side)).copy()
    split = Split(images, np.arange(num_samples + 3) * 10, rows)
    return BatchLoader(
        split, GlobalBatchSampler(EpochOrder(num_samples, 0, shuffled), batch_size, rank, world_size, accumulate)
    )


def test_batch_contains_images_and_labels_of_its_samples():
    batches = list(loader())
    assert [len(batch.labels) for batch in batches] == [6, 6, 6, 5] == [batch.global_size for batch in batches]
    for batch in batches:
        assert (batch.images.dtype, batch.labels.dtype, batch.samples.dtype) == (torch.uint8, torch.int64, torch.int64)
        assert batch.images.shape[1:] == (1, 2, 2)
        stored = 23 - 1 - batch.samples + 3
        assert torch.equal(batch.images[:, 0, 1, 1].long(), stored)
        assert torch.equal(batch.labels, stored * 10)
    assert sorted(torch.cat([batch.samples for batch in batches]).tolist()) == list(range(23))


def test_a_part_without_samples_is_an_empty_batch_of_the_right_shape():
    last = list(loader(7, 4, rank=3, world_size=4))[-1]
    assert (last.images.shape, last.labels.shape, last.samples.shape) == ((0, 1, 2, 2), (0,), (0,))
    assert last.global_size == 3


def test_the_epoch_is_read_at_the_first_batch_and_not_at_iter():
    batches = loader()
    iterator = iter(batches)
    batches.batch_sampler.sampler.set_epoch(4)
    first = next(iterator).samples
    assert torch.equal(first, next(iter(batches)).samples)
    batches.batch_sampler.sampler.set_epoch(5)
    assert not torch.equal(first, next(iter(batches)).samples)


def test_epoch_continued_in_the_middle_yields_the_rest_and_later_epochs_are_complete():
    batches = loader(accumulate=2)
    batches.batch_sampler.sampler.set_epoch(1)
    whole = [batch.samples.tolist() for batch in batches]
    batches.start_at(epoch=1, micro_batch=3)
    assert [batch.samples.tolist() for batch in batches] == whole[3:]
    assert len(batches) == len(whole) == 8
    batches.batch_sampler.sampler.set_epoch(2)
    assert len(list(batches)) == 8


def test_changing_a_batch_does_not_change_the_store_or_the_order():
    batches = loader(shuffled=False)
    before = [batch.images.clone() for batch in batches]
    for batch in batches:
        for tensor in batch[:3]:
            tensor.zero_()
    assert all(torch.equal(a, b.images) for a, b in zip(before, batches, strict=True))


def test_number_of_calls_does_not_depend_on_the_batch_size():
    few, many = (loader(num_samples=100 * size, batch_size=size, side=28) for size in (2, 256))
    assert calls(lambda: list(many)) < 1.1 * calls(lambda: list(few)) < 100 * 50
