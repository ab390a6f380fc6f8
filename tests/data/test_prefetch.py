"""A thread prepares the next batch on a side stream. torch.cpu has the streams of torch.cuda, which do nothing."""

import threading
import weakref
from itertools import islice
from threading import main_thread

import numpy as np
import pytest
import torch
from photographs_for_tests import module

from alexnet_lab.data.prefetch import prefetched, stream_of
from alexnet_lab.data.spec import Batch

CPU = torch.device("cpu")
MAIN = torch.cpu.Stream()


def batches(number, fail_at=None):
    for place in range(number):
        if place == fail_at:
            raise OSError(f"batch {place}")
        yield Batch(torch.full((2,), place), torch.zeros(2), torch.zeros(2), 2)


def number_of(batch):
    return int(batch.images[0])


@pytest.fixture
def events(monkeypatch):
    """The commands that each stream is given, in order; the thread gives those of the side stream."""
    found, recorded = {"side": [], "main": []}, []

    def name(stream):
        return "side" if stream is stream_of(CPU) else "main"

    def record_event(stream):
        event = f"{name(stream)} {sum(other.startswith(name(stream)) for other in recorded)}"
        recorded.append(event)
        found[name(stream)].append(f"records {event}")
        return event

    # torch.cpu has one current stream for all threads.
    monkeypatch.setattr(
        torch.cpu, "current_stream", lambda device: MAIN if threading.current_thread() is main_thread() else None
    )
    monkeypatch.setattr(torch.cpu.Stream, "wait_event", lambda one, event: found[name(one)].append(f"waits: {event}"))
    monkeypatch.setattr(torch.cpu.Stream, "record_event", record_event)
    return found


def test_next_batch_is_prepared_on_the_side_stream_while_this_one_is_computed(events):
    def prepare(batch):
        assert threading.current_thread() is not main_thread()
        events["side"].append(f"prepares {number_of(batch)}")
        return batch

    for batch in prefetched(batches(3), prepare, CPU):
        events["main"].append(f"computes {number_of(batch)}")
    assert events["side"] == [
        *("waits: main 0", "prepares 0", "records side 0"),
        *("waits: main 1", "prepares 1", "records side 1"),
        *("waits: main 2", "prepares 2", "records side 2"),
    ]
    assert events["main"] == [
        "records main 0",
        *("records main 1", "waits: side 0", "computes 0"),
        *("records main 2", "waits: side 1", "computes 1"),
        *("records main 3", "waits: side 2", "computes 2"),
    ]


@pytest.mark.parametrize("number", [0, 1, 5])
def test_all_batches_are_yielded_in_order(number):
    assert [number_of(batch) for batch in prefetched(batches(number), lambda batch: batch, CPU)] == list(range(number))


@pytest.mark.parametrize("place", [0, 1, 3])
def test_error_is_raised_after_the_batches_before_it(place):
    def prepare(batch):
        if number_of(batch) == place:
            raise OSError(f"batch {place}")
        return batch

    for feed in (prefetched(batches(4, fail_at=place), lambda batch: batch, CPU), prefetched(batches(4), prepare, CPU)):
        seen = [number_of(next(feed)) for _ in range(place)]
        with pytest.raises(OSError, match=f"batch {place}"):
            next(feed)
        assert seen == list(range(place))


def test_three_batches_exist_at_most():
    alive, most = weakref.WeakSet(), 0

    def prepare(batch):
        nonlocal most
        images = batch.images.clone()
        alive.add(images)
        most = max(most, len(alive))
        return batch._replace(images=images)

    for _batch in prefetched(batches(9), prepare, CPU):
        pass
    assert most == 3, "the one in use, the one before it, and the next one"


def test_epoch_that_is_left_early_ends_the_threads_and_the_next_one_is_complete(stores):
    data = module(stores["uint8"], workers=3)
    loader = data.train_dataloader()
    loader.prefetch = lambda ahead: prefetched(ahead, lambda batch: data.on_after_batch_transfer(batch, 0), CPU)
    feed = iter(loader)
    assert [len(batch.labels) for batch in islice(feed, 2)] == [6, 6]
    feed.close()
    assert not any(thread.name.startswith(("gather", "prefetch")) for thread in threading.enumerate())
    assert sorted(np.concatenate([batch.samples for batch in loader])) == list(range(23))


def test_prepared_batch_passes_the_hooks_of_lightning_unchanged(stores):
    for protocol in ("center", "ten_crop"):
        data = module(stores["uint8"])
        batch = next(iter(data.train_dataloader()))
        data.evaluate_by(protocol)
        if protocol == "ten_crop":
            batch = next(iter(data.val_dataloader()))
        prepared = data.on_after_batch_transfer(data.transfer_batch_to_device(batch, CPU, 0), 0)
        assert data.on_after_batch_transfer(data.transfer_batch_to_device(prepared, CPU, 0), 0) is prepared
