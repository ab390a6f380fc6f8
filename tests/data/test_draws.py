import numpy as np
import pytest
import slow_reference as slow
import torch

from alexnet_lab.data.draws import Augmentation, draw
from alexnet_lab.errors import UserError

PLAIN = {
    "crop": "centre",
    "crop_size": 224,
    "flip": 0.0,
    "rotation": 0.0,
    "scaling": 0.0,
    "jitter": 0.0,
    "colour_std": 0.0,
}
SAMPLES = np.arange(20_000)


def drawn(samples=SAMPLES, seed=1, epoch=2, **changes):
    return draw(Augmentation(**PLAIN | changes), (256, 256), seed, epoch, samples)


def test_nothing_is_drawn_for_the_centre():
    views = drawn(samples=np.arange(3))
    assert (views.corners.tolist(), views.size) == ([[16, 16]] * 3, (224, 224))
    corner, *others = views.draws
    assert corner.tolist() == [[16, 16]] * 3
    assert others == [None] * len(others)


def test_random_crops_are_uniform_over_33_x_33_positions():
    corners = drawn(crop="random").corners
    assert (corners.min(), corners.max()) == (0, 32)
    places = np.bincount(corners[:, 0] * 33 + corners[:, 1], minlength=33 * 33)
    expected = len(SAMPLES) / 33**2
    assert ((places - expected) ** 2 / expected).sum() < 33**2 + 5 * np.sqrt(2 * 33**2)
    assert abs(np.corrcoef(corners.T)[0, 1]) < 0.03


@pytest.mark.parametrize("probability", [0.25, 0.5, 0.9])
def test_images_are_mirrored_with_the_given_probability(probability):
    mirrored = drawn(flip=probability).draws.flip
    assert abs(mirrored.float().mean() - probability) < 4 * np.sqrt(probability * (1 - probability) / len(SAMPLES))


def test_with_probability_0_no_image_is_mirrored_and_with_1_every_one():
    assert drawn(flip=0.0).draws.flip is None
    assert drawn(flip=1.0).draws.flip.all()


def test_boxes_equal_torchvisions_algorithm():
    samples = np.arange(2000)
    boxes = drawn(samples, crop="random_resized").draws.box
    assert boxes.tolist() == [slow.box(1, 2, int(sample)) for sample in samples]


def test_boxes_have_the_area_and_ratio_distribution_of_torchvision():
    from torchvision.transforms import RandomResizedCrop

    torch.manual_seed(0)
    image = torch.empty(3, 256, 256)
    peers = np.array([RandomResizedCrop.get_params(image, [0.08, 1], [3 / 4, 4 / 3]) for _ in range(5000)])
    ours = drawn(crop="random_resized").draws.box.numpy()
    for figure in (
        lambda box: box[:, 2] * box[:, 3] / 256**2,
        lambda box: box[:, 3] / box[:, 2],
        lambda box: box[:, 0],
    ):
        quantiles = [np.quantile(figure(boxes), np.linspace(0.1, 0.9, 9)) for boxes in (ours, peers)]
        assert np.abs(quantiles[0] - quantiles[1]).max() < 0.04 * np.ptp(figure(peers))


def test_rotation_scaling_and_jitter_cover_their_ranges_independently():
    draws = drawn(rotation=15.0, scaling=0.1, jitter=0.4).draws
    columns = torch.cat([draws.rotation[:, None], draws.scaling[:, None], draws.jitter], 1)
    middle, reach = torch.tensor([0, 1, 1, 1, 1]), torch.tensor([15, 0.1, 0.4, 0.4, 0.4])
    standard = (columns - middle) / reach
    assert standard.abs().max() <= 1.000001
    torch.testing.assert_close(
        standard.quantile(torch.linspace(0, 1, 5), 0), torch.linspace(-1, 1, 5)[:, None].expand(5, 5), atol=0.04, rtol=0
    )
    assert (torch.corrcoef(standard.T) - torch.eye(5)).abs().max() < 0.03


def test_colour_noise_has_the_given_standard_deviation():
    amounts = drawn(colour_std=0.1).draws.colour
    assert (amounts.std(0) - 0.1).abs().max() < 0.003
    assert amounts.mean(0).abs().max() < 0.003


def test_colour_noise_ends_at_its_epoch_and_changes_no_other_draw():
    samples, settings = np.arange(50), {"crop": "random", "flip": 0.5, "colour_std": 0.1}
    for epoch, coloured in [(0, True), (66, True), (67, False), (90, False)]:
        always = drawn(samples, epoch=epoch, **settings)
        limited = drawn(samples, epoch=epoch, **settings, colour_until_epoch=67)
        assert (limited.draws.colour is not None) == coloured
        assert not coloured or torch.equal(limited.draws.colour, always.draws.colour)
        assert (limited.corners == always.corners).all()
        assert torch.equal(limited.draws.flip, always.draws.flip)
    assert drawn(samples, epoch=0, **settings, colour_until_epoch=0).draws.colour is None


def test_each_epoch_has_new_draws():
    one, two = (drawn(epoch=epoch, crop="random", flip=0.5) for epoch in (0, 1))
    assert (one.corners == two.corners).all(1).mean() < 0.01
    assert abs((one.draws.flip == two.draws.flip).float().mean() - 0.5) < 0.02


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("flip", 1.1, r"data.flip must be in \[0, 1\], got 1.1"),
        ("rotation", -1.0, r"data.rotation must be in \[0, 180\]"),
        ("scaling", 1.0, r"data.scaling must be in \[0, 0.9\]"),
        ("jitter", 2.0, r"data.jitter must be in \[0, 1\]"),
        ("colour_std", float("nan"), "data.colour_std must be in"),
        ("colour_until_epoch", -1, "data.colour_until_epoch must not be negative"),
        ("crop_size", 0, "data.crop_size must be at least 1, got 0"),
    ],
)
def test_values_out_of_range_are_reported(key, value, message):
    with pytest.raises(UserError, match=message):
        Augmentation(**PLAIN | {key: value})
