"""A batch of pixels is one copy, or is read image by image; threads work at most three batches ahead."""

import mmap
import threading
import time

import numpy as np
import pytest
import torch
from tests.counting import calls

from alexnet_lab import machine
from alexnet_lab.data.dataset import Split
from alexnet_lab.data.draws import Augmentation
from alexnet_lab.data.gather import PixelFile, gather
from alexnet_lab.data.loader import AHEAD, BatchLoader, default_workers
from alexnet_lab.data.sampler import EpochOrder, GlobalBatchSampler
from alexnet_lab.errors import UserError

SHAPE = (40, 9, 11, 3)
HEADER = 5
RANDOM = Augmentation("random", 6, flip=0.5, rotation=0, scaling=0, jitter=0, colour_std=0)


@pytest.fixture(params=["mapped", "too large", "refused"])
def pixels(request, tmp_path, monkeypatch):
    """The pixels, and their file, which is mapped, or read as it is too large or the system refuses to map."""

    def refused(*arguments, **options):
        raise OSError(12, "Cannot allocate memory")

    if request.param == "refused":
        monkeypatch.setattr(mmap, "mmap", refused)
    array = np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8)
    path = tmp_path / "pixels"
    path.write_bytes(bytes(HEADER) + array.tobytes())
    length = path.stat().st_size
    monkeypatch.setattr(machine, "memory", lambda: 2 * length - (request.param == "too large"))
    return array, PixelFile(path, HEADER, SHAPE)


@pytest.mark.parametrize("size", [(1, 1), (4, 7), (9, 2), (3, 11), (9, 11)])
@pytest.mark.parametrize("number", [0, 1, 300])
def test_windows_are_those_of_the_array(pixels, size, number):
    array, file = pixels
    random = np.random.default_rng(1)
    rows = random.integers(0, SHAPE[0], number)
    corners = random.integers(0, np.array(SHAPE[1:3]) - size + 1, (number, 2))
    if number > 1:  # the very first and the very last bytes of the file
        rows[:2], corners[0], corners[1] = (0, SHAPE[0] - 1), (0, 0), np.array(SHAPE[1:3]) - size
    target = torch.zeros((number, *size, 3), dtype=torch.uint8)
    gather(file, rows, corners, target)
    for place, (row, (top, left)) in enumerate(zip(rows, corners, strict=True)):
        assert np.array_equal(target[place], array[row, top : top + size[0], left : left + size[1]])


def test_shortened_file_is_reported_with_the_first_image_that_lacks_pixels(pixels, tmp_path):
    array, file = pixels
    image = array[0].nbytes
    with (tmp_path / "pixels").open("r+b") as cut:
        cut.truncate(HEADER + 30 * image + 5 * 33)  # five lines of image 30
    target = torch.zeros((3, 2, 2, 3), dtype=torch.uint8)
    gather(file, np.array([1, 30, 29]), np.array([(0, 0), (3, 9), (7, 0)]), target)
    assert np.array_equal(target[1], array[30, 3:5, 9:11])
    with pytest.raises(UserError, match=r"pixels ends within image 30: it was cut short after it was opened"):
        gather(file, np.array([1, 30, 35]), np.array([(0, 0), (4, 0), (0, 0)]), target)


def store(folder, number, workers=0, batch_size=4):
    path = folder / f"pixels{number}"
    path.write_bytes(np.arange(number * 64 * 3, dtype=np.uint32).astype(np.uint8).tobytes())
    split = Split(PixelFile(path, 0, (number, 8, 8, 3)), np.zeros(number, np.int64), np.arange(number))
    return BatchLoader(split, GlobalBatchSampler(EpochOrder(number, 0, True), batch_size), RANDOM, workers)


def test_number_of_calls_of_a_store_does_not_depend_on_the_batch_size(tmp_path):
    few, many = (store(tmp_path, 10 * size, batch_size=size) for size in (2, 256))
    assert calls(lambda: list(many)) < 1.1 * calls(lambda: list(few)) < 10 * 140


class Counted:
    """Images that record which were read by which threads, and with how many threads of torch."""

    dtype = np.dtype(np.uint8)
    shape = (400, 3, 8, 8)

    def __init__(self):
        self.rows, self.threads, self.of_torch = set(), set(), set()
        self.lock = threading.Lock()

    def window(self, row, top, left, height, width):
        time.sleep(0.0005)  # lets the other threads begin
        with self.lock:
            self.rows.add(row)
            self.threads.add(threading.get_ident())
            self.of_torch.add(torch.get_num_threads())
        return np.full((height, width, 3), row % 251, np.uint8)


@pytest.mark.parametrize("workers", [1, 2, 7, 12])
def test_threads_work_at_most_three_batches_ahead_and_share_them(workers):
    images, before = Counted(), torch.get_num_threads()
    split = Split(images, np.arange(400), np.arange(400))
    loader = BatchLoader(split, GlobalBatchSampler(EpochOrder(400), 20), RANDOM, workers)
    places = set()
    for number, batch in enumerate(loader, 1):
        time.sleep(0.02)  # the threads do all that they may
        assert len(images.rows) <= 20 * (number + AHEAD)
        assert batch.images[:, 0, 0, 0].tolist() == [row % 251 for row in batch.labels.tolist()]
        places.add(batch.images.data_ptr())
    assert number == 20
    assert min(workers, AHEAD + 1) <= len(images.threads) <= workers, "above three, several share a batch"
    assert len(places) <= AHEAD + 2, "of the batch in use, of the next, of those ahead"
    assert (images.of_torch, torch.get_num_threads()) == ({1}, before)


def test_error_in_the_share_of_another_thread_is_raised_at_its_batch():
    class Damaged(Counted):
        def window(self, row, top, left, height, width):
            if row == 77:
                raise UserError("image 77 is damaged")
            return super().window(row, top, left, height, width)

    split = Split(Damaged(), np.arange(400), np.arange(400))
    batches = iter(BatchLoader(split, GlobalBatchSampler(EpochOrder(400), 40), RANDOM, workers=12))
    assert next(batches).labels.tolist() == list(range(40))
    with pytest.raises(UserError, match="image 77 is damaged"):
        next(batches)


def test_workers_come_from_the_cores_of_the_rank(monkeypatch):
    for cores, ranks, threads, expected in [
        (1, 1, 1, 2), (2, 1, 2, 2), (8, 1, 1, 7), (16, 1, 16, 12), (16, 4, 1, 3), (64, 8, 8, 7), (8, 8, 8, 7),
    ]:  # fmt: skip
        monkeypatch.setattr(machine, "cores", lambda: list(range(cores)))  # noqa: B023
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)  # noqa: B023
        assert default_workers(ranks) == expected
        assert default_workers(ranks, few=True) == min(expected, 4)


def test_memory_is_that_of_the_machine_at_most():
    assert 2**20 < machine.memory() <= machine.os.sysconf("SC_PAGE_SIZE") * machine.os.sysconf("SC_PHYS_PAGES")
