import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import Compose, Resize, ToTensor

from alexnet_lab.data.pipeline import ColourNoise, InputPipeline, resize_matrix
from alexnet_lab.data.spec import Draws


def noise(n=3, channels=1, height=28, width=28):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, channels, height, width), generator=generator, dtype=torch.uint8)


def test_images_of_the_right_size_are_only_scaled_to_the_unit_interval():
    images = noise()
    assert torch.equal(InputPipeline(28, [0.0], [1.0])(images), images.float() / 255)


def test_resize_equals_torchvisions_resize_of_real_images(real_images):
    reference = Compose([Resize(224), ToTensor()])
    expected = torch.stack([reference(Image.fromarray(image[0])) for image in real_images])
    ours = InputPipeline(224, [0.0], [1.0])(torch.from_numpy(real_images))
    assert (ours - expected).abs().max() <= 1.5 / 255


@pytest.mark.parametrize("size", [16, 27, 100])
def test_resize_equals_pils_antialiased_resize_of_colour_noise(size):
    images = noise(channels=3, height=64, width=64)
    reference = Compose([Resize(size), ToTensor()])
    expected = torch.stack([reference(Image.fromarray(image.permute(1, 2, 0).numpy())) for image in images])
    assert (InputPipeline(size, [0.0], [1.0])(images) - expected).abs().max() <= 1.5 / 255


def test_doubling_matches_hand_computed_values():
    expected = [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]
    assert resize_matrix(2, 4, torch.device("cpu")).tolist() == expected


def test_an_oblong_image_is_warped_to_a_square():
    images = noise(height=20, width=30)
    expected = torch.nn.functional.interpolate(images.float() / 255, (40, 40), mode="bilinear")
    torch.testing.assert_close(InputPipeline(40, [0.0], [1.0])(images), expected)


def test_mean_and_std_are_per_channel():
    images = noise(channels=3)
    mean, std = [0.1, 0.2, 0.3], [0.5, 1.0, 2.0]
    expected = images.float() / 255
    for channel in range(3):
        expected[:, channel] = (expected[:, channel] - mean[channel]) / std[channel]
    torch.testing.assert_close(InputPipeline(28, mean, std)(images), expected)
    resized = torch.nn.functional.interpolate(expected, (56, 56), mode="bilinear")
    torch.testing.assert_close(InputPipeline(56, mean, std)(images), resized)


@pytest.mark.parametrize("size", [28, 56])
def test_memory_format(size):
    images = noise(channels=3)
    last = InputPipeline(size, [0.0], [1.0])(images)
    first = InputPipeline(size, [0.0], [1.0], channels_last=False)(images)
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert first.is_contiguous()
    assert torch.equal(last, first)


@pytest.mark.parametrize("size", [28, 224])
def test_empty_batch(size):
    assert InputPipeline(size, [0.0], [1.0])(noise(0)).shape == (0, 1, size, size)


def test_stored_images_are_unchanged():
    images = noise()
    before = images.clone()
    InputPipeline(28, [0.5], [0.5])(images)
    assert np.array_equal(images, before)


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("boxed", [False, True])
def test_default_dtype_of_torch_does_not_matter(device, boxed):
    number, stored = 3, 61 if boxed else 59  # sizes of this test alone: constants are computed once
    draws = Draws(
        box=torch.tensor([[0, 1, 50, 40]] * number) if boxed else None,
        flip=torch.tensor([True, False, True]),
        rotation=torch.full((number,), 5.0),
        scaling=torch.full((number,), 1.1),
        jitter=torch.ones(number, 3),
        colour=torch.ones(number, 3),
    )
    noise_of = ColourNoise(torch.ones(3), torch.eye(3), 1.7)
    images, found = noise(number, 3, stored, stored).to(device), []
    draws = Draws(*(drawn if drawn is None else drawn.to(device) for drawn in draws))
    for default in (torch.float64, torch.float32):
        torch.set_default_dtype(default)  # as trainer.precision=64-true does, for all threads
        try:
            pipeline = InputPipeline(53, [0.4, 0.5, 0.6], [0.2, 0.3, 0.4], noise=noise_of)
            found.append(pipeline(images, draws))
        finally:
            torch.set_default_dtype(torch.float32)
    assert [images.dtype for images in found] == [torch.float32, torch.float32]
    assert device == "meta" or torch.equal(*found)
