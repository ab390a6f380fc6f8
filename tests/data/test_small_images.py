"""Augmentation of the images that are kept in memory: Fashion-MNIST and the synthetic ones."""

import numpy as np
import pytest
import torch
from test_fashion_mnist import SETTINGS as FASHION_MNIST
from test_synthetic import SETTINGS as SYNTHETIC

from alexnet_lab.data.fashion_mnist import fashion_mnist
from alexnet_lab.data.small_images import covariance
from alexnet_lab.data.spec import Draws
from alexnet_lab.data.synthetic import synthetic
from alexnet_lab.errors import UserError

ALL = {"flip": 0.5, "rotation": 10.0, "scaling": 0.1, "jitter": 0.4, "colour": "source"}
NAMES = {"flip", "rotation", "scaling", "jitter", "colour"}


def module(**changes):
    return synthetic(**SYNTHETIC | {"batch_size": 200} | changes)


def first_batches(data, epoch=0, number=1):
    """The batches, and the network's inputs of each."""
    loader = data.train_dataloader()
    loader.batch_sampler.sampler.set_epoch(epoch)
    batches = [batch for batch, _ in zip(loader, range(number), strict=False)]
    return batches, [data.on_after_batch_transfer(batch, 0).images for batch in batches]


def drawn(draws):
    return {name for name, value in draws._asdict().items() if value is not None}


def by_sample(batches, values):
    return {sample: value for batch, value in zip(batches, values, strict=True)
            for sample, value in zip(batch.samples.tolist(), value, strict=True)}  # fmt: skip


def test_by_default_nothing_is_drawn_and_images_are_the_stored_ones():
    data = module()
    (batch,), (images,) = first_batches(data)
    stored = torch.from_numpy(data.dataset.split("train").images)
    assert drawn(batch.draws) == set()
    assert torch.equal(images, stored[batch.samples] / 255)


@pytest.mark.parametrize("crop", ["random", "random_resized"])
def test_every_kind_of_augmentation_depends_on_seed_epoch_and_sample_only(crop):
    one, other, next_epoch, next_seed = (
        by_sample(*first_batches(module(crop=crop, **ALL, batch_size=size, seed=seed), epoch, 20))
        for size, seed, epoch in ((200, 0, 3), (33, 0, 3), (200, 0, 4), (200, 1, 3))
    )
    assert len(one) == 512
    assert all(torch.equal(one[sample], other[sample]) for sample in one)
    assert not any(torch.equal(one[sample], next_epoch[sample]) for sample in one)
    assert not any(torch.equal(one[sample], next_seed[sample]) for sample in one)


def test_random_crops_move_images_by_up_to_the_padding_uniformly():
    batches, _ = first_batches(module(train_size=20_000, batch_size=20_000, stored_size=8, crop="random"))
    shifts = batches[0].draws.shift.numpy()
    assert drawn(batches[0].draws) == {"shift"}
    counts = np.bincount((shifts[:, 0] + 4) * 9 + shifts[:, 1] + 4, minlength=81)
    assert (shifts.min(), shifts.max(), len(counts)) == (-4, 4, 81)
    assert ((counts - 20_000 / 81) ** 2 / (20_000 / 81)).sum() < 81 + 5 * np.sqrt(2 * 81)


def test_evaluation_uses_the_stored_images():
    data = module(crop="random", **ALL)
    batch = next(iter(data.val_dataloader()))
    stored = torch.from_numpy(data.dataset.split("val").images)
    assert torch.equal(data.on_after_batch_transfer(batch, 0).images, stored[batch.samples] / 255)
    assert (data.preprocessing.crop_size, data.preprocessing.stored_size) == (None, None)
    with pytest.raises(UserError, match=r"protocol=ten_crop: synthetic is not cropped"):
        data.evaluate_by("ten_crop")


def test_fashion_mnist_takes_every_kind_at_once(system_folder):
    data = fashion_mnist(dir=str(system_folder), **FASHION_MNIST | {"image_size": 56}, **ALL, crop="random")
    (batch,), (images,) = first_batches(data)
    assert drawn(batch.draws) == NAMES | {"shift"}
    assert (batch.draws.colour.shape, images.shape) == ((128, 1), (128, 1, 56, 56))
    again = data.pipeline(batch.images, batch.draws)
    assert torch.equal(images, again)
    assert not torch.equal(images, data.pipeline(batch.images))


def test_colour_noise_of_grey_images_moves_their_brightness_by_the_published_rule(system_folder):
    batch = torch.zeros(3, 1, 28, 28, dtype=torch.uint8)
    amounts = torch.tensor([[-1.0], [0.0], [2.0]])
    std = 0.3530  # of the training images' pixels
    for colour, expected in (("paper", amounts * std**2), ("source", amounts * std / 1.1)):
        data = fashion_mnist(dir=str(system_folder), **FASHION_MNIST, colour=colour)
        found = data.pipeline(batch, Draws(colour=amounts))
        torch.testing.assert_close(found, expected[:, :, None, None].expand_as(found), atol=1e-3, rtol=0)


def test_covariance_of_channels_is_numpys():
    split = module(train_size=9000, stored_size=4).dataset.split("train")
    pixels = split.images.swapaxes(0, 1).reshape(3, -1) / 255
    np.testing.assert_allclose(covariance(split), np.cov(pixels, bias=True), atol=1e-12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop": "random", "crop_padding": 0}, r"data.crop_padding must be in \[1, 31\] with data.crop=random, got 0"),
        ({"crop": "random", "crop_padding": 32}, r"data.crop_padding must be in \[1, 31\]"),
        ({"flip": 1.5}, r"data.flip must be in \[0, 1\], got 1.5"),
        ({"jitter": 0.4, "channels": 5}, "data.jitter needs grey or RGB images, not 5 channels"),
        ({"colour": "paper", "colour_until_epoch": -1}, "data.colour_until_epoch must not be negative"),
    ],
)
def test_wrong_values_are_reported(changes, message):
    with pytest.raises(UserError, match=message):
        module(**changes)
