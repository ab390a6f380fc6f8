import itertools

import numpy as np
import pytest
from tests.counting import calls

from alexnet_lab.data.dataset import held_out_rows
from alexnet_lab.data.sampler import EpochOrder, GlobalBatchSampler, random_order
from alexnet_lab.errors import UserError


def micro_batches(
    num_samples, batch_size, rank=0, world_size=1, accumulate=1, seed=3, epoch=5, shuffled=True, first=0, **more
):
    order = EpochOrder(num_samples, seed, shuffled)
    order.set_epoch(epoch)
    return list(GlobalBatchSampler(order, batch_size, rank, world_size, accumulate, **more).micro_batches(first))


def test_the_order_is_a_permutation_fixed_by_seed_and_epoch():
    order = random_order(1000, seed=1, epoch=2)
    assert sorted(order) == list(range(1000))
    assert np.array_equal(order, random_order(1000, seed=1, epoch=2))
    others = [
        random_order(1000, seed=2, epoch=1),
        random_order(1000, seed=1, epoch=3),
        random_order(1000, 1, 2, stream=1),
    ]
    assert all((order == other).mean() < 0.02 for other in others)


def test_order_is_stable_across_versions():
    assert random_order(10, seed=0, epoch=0).tolist() == [0, 2, 9, 1, 8, 5, 4, 3, 6, 7]
    assert random_order(10, seed=42, epoch=7).tolist() == [6, 8, 7, 4, 5, 2, 9, 0, 1, 3]


def test_every_position_is_equally_likely():
    firsts = np.bincount([random_order(4, seed=0, epoch=epoch)[0] for epoch in range(4000)], minlength=4)
    assert np.abs(firsts - 1000).max() < 120  # 4.4 standard deviations


def test_the_order_of_imagenet_takes_no_more_calls_than_a_short_one():
    assert len(random_order(1_281_167, seed=0)) == 1_281_167
    assert calls(lambda: random_order(1_281_167, seed=0)) < 10 + calls(lambda: random_order(10, seed=0))


@pytest.mark.parametrize(
    ("num_samples", "batch_size", "world_size", "accumulate"),
    [(23, 6, world_size, accumulate) for world_size in (1, 2, 3) for accumulate in (1, 2, 3)]
    + [(7, 7, 4, 1), (7, 4, 4, 2), (5, 8, 2, 1), (12, 6, 2, 1)],
)
def test_ranks_and_micro_batches_together_are_the_single_process_batch(num_samples, batch_size, world_size, accumulate):
    expected = micro_batches(num_samples, batch_size)
    ranks = [micro_batches(num_samples, batch_size, rank, world_size, accumulate) for rank in range(world_size)]
    assert {len(rank) for rank in ranks} == {len(expected) * accumulate}
    for step, (batch, size, _) in enumerate(expected):
        parts = [rank[step * accumulate + micro] for rank in ranks for micro in range(accumulate)]
        assert sorted(np.concatenate([samples for samples, *_ in parts])) == sorted(batch)
        assert {global_size for _, global_size, _ in parts} == {size} == {len(batch)}
        sizes = [len(samples) for samples, *_ in parts]
        assert max(sizes) - min(sizes) <= 1


def test_seven_samples_on_four_ranks_leave_one_rank_empty_in_the_last_step():
    sizes = [[len(samples) for samples, *_ in micro_batches(7, 4, rank, 4)] for rank in range(4)]
    assert sizes == [[1, 1], [1, 1], [1, 1], [1, 0]]


@pytest.mark.parametrize(
    ("num_samples", "batch_size", "world_size"),
    [*((10, 4, world_size) for world_size in (1, 2, 3, 4)), (10_000, 256, 3), (7, 64, 4), (7, 2, 4)],
)
def test_evaluation_counts_every_sample_exactly_once(num_samples, batch_size, world_size):
    parts = [micro_batches(num_samples, batch_size, rank, world_size, shuffled=False) for rank in range(world_size)]
    samples = np.concatenate([samples for samples, *_ in itertools.chain(*parts)])
    assert sorted(samples) == list(range(num_samples))
    assert {sum(size for _, size, _ in rank) for rank in parts} == {num_samples}


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize(("num_samples", "batch_size"), [(23, 6), (22, 7), (13, 12), (6, 8)])
def test_pairs_of_the_global_batch_are_never_split(num_samples, batch_size, world_size, accumulate):
    whole = [batch for batch, *_ in micro_batches(num_samples, batch_size)]
    ranks = [
        micro_batches(num_samples, batch_size, rank, world_size, accumulate, together=2) for rank in range(world_size)
    ]
    for step, batch in enumerate(whole):
        parts = [rank[step * accumulate + micro].samples for rank in ranks for micro in range(accumulate)]
        found = [tuple(part[at : at + 2]) for part in parts for at in range(0, len(part), 2)]
        assert sorted(found) == sorted(tuple(batch[at : at + 2]) for at in range(0, len(batch), 2))
        sizes = [len(part) for part in parts]
        assert max(sizes) - min(sizes) <= 2


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_every_part_has_the_weight_of_its_global_batch(world_size):
    weights = np.random.default_rng(0).random(23)
    expected = [float(weights[batch].sum()) for batch, *_ in micro_batches(23, 6)]
    for rank in range(world_size):
        parts = micro_batches(23, 6, rank, world_size, accumulate=2, weights=weights)
        assert [part.global_weight for part in parts[::2]] == [part.global_weight for part in parts[1::2]] == expected


def test_evaluation_keeps_the_order_of_the_samples():
    assert micro_batches(10, 4, shuffled=False)[1][0].tolist() == [4, 5, 6, 7]


def test_starting_in_mid_epoch_yields_the_rest():
    whole = micro_batches(23, 6, 1, 2, 2)
    rest = micro_batches(23, 6, 1, 2, 2, first=5)
    assert len(rest) == len(whole) - 5
    assert all(np.array_equal(a[0], b[0]) and a[1] == b[1] for a, b in zip(rest, whole[5:], strict=True))


def test_held_out_rows_partition_the_samples_and_depend_only_on_the_split_seed():
    train, val = held_out_rows(100, 10, split_seed=0)
    assert (len(train), len(val)) == (90, 10)
    assert sorted([*train, *val]) == list(range(100))
    assert np.array_equal(val, held_out_rows(100, 10, split_seed=0)[1])
    assert not np.array_equal(val, held_out_rows(100, 10, split_seed=1)[1])


@pytest.mark.parametrize("val_size", [0, -1, 100, 101])
def test_split_without_training_images_is_refused(val_size):
    with pytest.raises(UserError, match=r"data.val_size must be in \[1, 99\]"):
        held_out_rows(100, val_size, split_seed=0)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_whole_batches_are_dealt_to_the_ranks_in_turns_composed_as_on_one_rank(ranks: int) -> None:
    order = EpochOrder(50, chunks=np.arange(50) % 7)
    alone = list(GlobalBatchSampler(order, 8).micro_batches())
    of_ranks = [list(GlobalBatchSampler(order, 8, rank, ranks, whole=True).micro_batches()) for rank in range(ranks)]
    for step, expected in enumerate(alone):
        for rank, parts in enumerate(of_ranks):
            part = parts[step]
            assert part.global_size == expected.global_size
            assert part.samples.tolist() == (expected.samples.tolist() if step % ranks == rank else [])
