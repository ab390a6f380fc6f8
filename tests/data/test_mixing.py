"""Mixup and cutmix are torchvision's, of pairs, with draws that depend only on (seed, epoch, sample)."""

import math

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from alexnet_lab.data.mixing import WORDS_OF_GAMMA, Mixing, beta, mixed
from alexnet_lab.data.spec import MIXTURE_UNITS, Batch, Mixture
from alexnet_lab.data.synthetic import synthetic
from alexnet_lab.errors import UserError
from alexnet_lab.pictures.callback import _words

SIZE, CLASSES = 11, 4
SAMPLES = np.array([17, 3, 8, 21, 30, 5, 12])  # three pairs and one without a partner
LABELS = np.array([0, 1, 3, 3, 2, 0, 1])
BOTH = Mixing(mixup_alpha=0.4, cutmix_alpha=1.0)


def images(number=7):
    return torch.randn(number, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def probabilities(mixture, labels=LABELS):
    """[N, K], of torchvision's form."""
    own, partners = (torch.nn.functional.one_hot(torch.as_tensor(of), CLASSES) for of in (labels, mixture.partners))
    share = mixture.share(torch.float32)[:, None]
    return share * own + (1 - share) * partners


def torchvisions(kind, share, monkeypatch, centre=(0, 0)):
    """Torchvision's transform with this lambda, and for cutmix this centre of the box, x and y."""
    transform = getattr(v2, kind)(alpha=1.0, num_classes=CLASSES)
    monkeypatch.setattr(transform._dist, "sample", lambda shape: torch.tensor(share, dtype=torch.float64))
    places = iter(torch.tensor([[place] for place in centre]))
    monkeypatch.setattr(torch, "randint", lambda *_, size: next(places))
    return transform


@pytest.mark.parametrize("epoch", range(5))
def test_mixup_equals_torchvisions_of_each_pair(epoch, monkeypatch):
    mixture = Mixing(mixup_alpha=0.7).draw(SIZE, 1, epoch, SAMPLES, LABELS)
    output, labels = mixed(images(), mixture), probabilities(mixture)
    for at in (0, 2, 4):
        pair, share = slice(at, at + 2), mixture.shares[at].item() / MIXTURE_UNITS
        peer = torchvisions("MixUp", share, monkeypatch)(images()[pair], torch.from_numpy(LABELS[pair]))
        assert torch.equal(output[pair], peer[0])
        torch.testing.assert_close(labels[pair], peer[1], rtol=0, atol=1e-7)
    assert torch.equal(output[6], images()[6]), "without a partner"
    assert labels[6].tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize("epoch", range(5))
def test_cutmix_equals_torchvisions_of_each_pair(epoch, monkeypatch):
    drawn, given = [], Mixing(cutmix_alpha=1.0)
    monkeypatch.setattr("alexnet_lab.data.mixing.cut_box", recorded(drawn))
    mixture = given.draw(SIZE, 1, epoch, SAMPLES, LABELS)
    output, labels = mixed(images(), mixture), probabilities(mixture)
    for at, (share, *centre) in zip((0, 2, 4), drawn, strict=True):
        pair = slice(at, at + 2)
        peer = torchvisions("CutMix", share / MIXTURE_UNITS, monkeypatch, centre)
        pixels, expected = peer(images()[pair], torch.from_numpy(LABELS[pair]))
        assert torch.equal(output[pair], pixels)
        torch.testing.assert_close(labels[pair], expected, rtol=0, atol=1e-7)
    assert torch.equal(output[6], images()[6])
    assert labels[6].tolist() == [0, 1, 0, 0]


def recorded(calls):
    from alexnet_lab.data.mixing import cut_box

    def record(size, share, across, down):
        calls.append((share, int(across * size), int(down * size)))
        return cut_box(size, share, across, down)

    return record


def test_with_both_each_pair_has_one_kind_with_equal_probability():
    mixture = BOTH.draw(SIZE, 0, 0, np.arange(8000), np.zeros(8000, np.int64))
    is_mixup, is_cutmix = mixture.blend < MIXTURE_UNITS, mixture.boxes.any(1)
    assert not (is_mixup & is_cutmix).any()
    assert torch.equal(is_mixup[::2], is_mixup[1::2])
    assert abs(is_mixup[::2].float().mean() - 0.5) < 4 * 0.5 / math.sqrt(4000)


def test_mixed_images_keep_the_memory_format():
    mixture = BOTH.draw(SIZE, 0, 0, SAMPLES, LABELS)
    given = images().contiguous(memory_format=torch.channels_last)
    assert mixed(given, mixture).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(mixed(given, mixture), mixed(images(), mixture))
    assert mixed(images(0), BOTH.draw(SIZE, 0, 0, SAMPLES[:0], LABELS[:0])).shape == (0, 3, SIZE, SIZE)


@pytest.mark.parametrize(
    ("alpha", "distribution"),
    [
        (0.5, lambda x: 2 / math.pi * math.asin(math.sqrt(x))),
        (1.0, lambda x: x),
        (2.0, lambda x: 3 * x**2 - 2 * x**3),
    ],
)
def test_shares_have_the_beta_distribution(alpha, distribution):
    number = 20_000
    drawn = Mixing(mixup_alpha=alpha).draw(SIZE, 3, 0, np.arange(2 * number), np.zeros(2 * number, np.int64))
    shares = np.sort(drawn.share(torch.float64)[::2].numpy())
    expected = np.array([distribution(share) for share in shares])
    # Kolmogorov-Smirnov; larger with a probability of 1e-4.
    assert np.abs(expected - (np.arange(number) + 0.5) / number).max() < 2.23 / math.sqrt(number)


@pytest.mark.parametrize("alpha", [0.001, 0.2, 8.0, 1000.0])
def test_shares_of_any_alpha_have_the_deviation_of_beta(alpha):
    number = 20_000
    drawn = Mixing(mixup_alpha=alpha).draw(SIZE, 3, 0, np.arange(2 * number), np.zeros(2 * number, np.int64))
    shares = drawn.share(torch.float64)[::2]
    deviation = math.sqrt(1 / (4 * (2 * alpha + 1)))
    assert abs(shares.mean() - 0.5) < 4 * deviation / math.sqrt(number)
    assert abs(shares.std() / deviation - 1) < 0.03


def test_draws_are_the_same_in_every_version():
    mixture = BOTH.draw(224, 7, 2, np.arange(8), np.zeros(8, np.int64))
    assert mixture.shares[::2].tolist() == [11153492, 5704779, 11960320, 15984581]
    assert mixture.boxes[::2].tolist() == [[85, 103, 224, 224], [0, 0, 0, 0], [126, 0, 224, 147], [0, 0, 0, 0]]


def test_extreme_uniforms_give_shares_in_range():
    for low in (0.0, 1 - 2.0**-53):
        for alpha in (1e-6, 0.3, 1.0, 50.0):
            assert 0 <= beta(alpha, [low] * (2 * WORDS_OF_GAMMA)) <= MIXTURE_UNITS


def test_the_label_with_the_larger_share_counts():
    mixture = BOTH.draw(SIZE, 0, 0, SAMPLES, LABELS)
    most = probabilities(mixture).argmax(1)
    tied = mixture.shares * 2 == MIXTURE_UNITS
    assert torch.equal(mixture.largest(torch.from_numpy(LABELS))[~tied], most[~tied])


def test_picture_of_the_batch_names_the_larger_share():
    shares = torch.tensor([0.25, 0.25, 0.5, 0.5, 1.0]).mul(MIXTURE_UNITS).int()
    labels, partners = torch.tensor([0, 1, 2, 3, 0]), torch.tensor([1, 0, 3, 2, 0])
    batch = Batch(torch.empty(5), labels, labels, 5, mixture=Mixture(partners, shares))
    assert _words(batch, "abcd") == ["75% b", "75% a", "50% c", "50% d", "a"]
    assert _words(batch._replace(mixture=None), "abcd") == ["a", "b", "c", "d", "a"]


@pytest.mark.parametrize("key", ["mixup_alpha", "cutmix_alpha"])
def test_negative_alpha_is_refused(key):
    with pytest.raises(UserError, match=rf"^data\.{key} must not be negative, got -0\.1; 0 turns it off"):
        Mixing(**{key: -0.1})


class AsTrainer:
    """What the data module asks of a Trainer."""

    num_devices = 1

    def __init__(self, rank, world_size, accumulate):
        self.distributed_sampler_kwargs = {"rank": rank, "num_replicas": world_size}
        self.accumulate_grad_batches = accumulate
        self.strategy = type("Strategy", (), {"root_device": torch.device("cpu")})
        self.precision_plugin = type("Precision", (), {"convert_input": staticmethod(lambda images: images)})


def made(rank=0, world_size=1, accumulate=1, **changes):
    """The data module of a rank."""
    settings = {"name": "s", "num_classes": CLASSES, "channels": 3, "mean": [0.4], "std": [0.2], "stored_size": 8}
    settings |= {"train_size": 23, "val_size": 4, "test_size": 4, "image_size": SIZE, "batch_size": 6}
    settings |= {"eval_batch_size": 4, "split_seed": 0, "seed": 0, "mixup_alpha": 0.4, "cutmix_alpha": 1.0}
    data = synthetic(**settings | changes)
    data.trainer = AsTrainer(rank, world_size, accumulate)
    return data


def epoch(rank=0, world_size=1, accumulate=1, step=0, **changes) -> list[Batch]:
    """A rank's batches of an epoch, ready for the network, from optimizer step `step` on."""
    data = made(rank, world_size, accumulate, **changes)
    data._start = {"epoch": 0, "step": step}
    return [data.on_after_batch_transfer(batch, 0) for batch in data.train_dataloader()]


def by_sample(batches):
    """Everything that is known of each sample, for comparison to the last bit."""
    return {
        sample: (image.numpy().tobytes(), partner, share)
        for batch in batches
        for sample, image, partner, share in zip(
            batch.samples.tolist(),
            batch.images,
            batch.mixture.partners.tolist(),
            batch.mixture.shares.tolist(),
            strict=True,
        )
    }


@pytest.mark.parametrize("batch_size", [6, 7])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_mixed_images_do_not_depend_on_ranks_and_accumulation(world_size, accumulate, batch_size):
    whole = by_sample(epoch(batch_size=batch_size))
    ranks = [epoch(rank, world_size, accumulate, batch_size=batch_size) for rank in range(world_size)]
    found = [by_sample(batches) for batches in ranks]
    assert sum(map(len, found)) == 23
    assert {sample: known for rank in found for sample, known in rank.items()} == whole


def test_mixed_images_after_a_restart_in_mid_epoch_are_the_same():
    whole = by_sample(epoch())
    rest = by_sample(epoch(rank=0, accumulate=2, step=2))
    assert len(rest) == 23 - 2 * 6
    assert rest == {sample: whole[sample] for sample in rest}


def test_prefetched_batch_is_mixed_once():
    """The prefetching thread prepares it, and Lightning then offers it for preparation again."""
    data, (batch, *_) = made(), made().train_dataloader()
    once = data.prepared(batch)
    assert data.on_after_batch_transfer(once, 0) is once
    assert torch.equal(once.images, epoch()[0].images)
    assert not torch.equal(once.images, data.on_after_batch_transfer(batch._replace(mixture=None), 0).images)


def test_evaluation_is_not_mixed():
    settings = {"name": "s", "num_classes": 4, "channels": 1, "mean": [0.0], "std": [1.0], "stored_size": 8}
    settings |= {"train_size": 8, "val_size": 4, "test_size": 4, "image_size": 8, "batch_size": 4}
    data = synthetic(**settings, eval_batch_size=4, split_seed=0, seed=0, mixup_alpha=1.0)
    assert [batch.mixture for batch in (*data.val_dataloader(), *data.test_dataloader())] == [None, None]


def test_batch_of_one_image_cannot_be_mixed():
    with pytest.raises(UserError, match=r"^mixing images needs data\.batch_size of at least 2, got 1"):
        epoch(batch_size=1)
