import itertools
import math

import pytest
import torch
import torchvision.transforms.v2.functional as peer
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms import InterpolationMode, TenCrop

from alexnet_lab.data.augment import (
    colour_shift,
    flip,
    jitter,
    resize_boxes,
    resize_by_products,
    rotate_and_scale,
    shift,
    ten_views,
    unit,
    windows,
)
from alexnet_lab.data.draws import random_boxes


def pixels(number=4, side=64, kind=torch.float32):
    """Smooth random images, uint8 or floats in [0, 1]."""
    coarse = torch.rand(number, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    images = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1)
    return images if kind.is_floating_point else (images * 255).to(kind)


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_only_the_chosen_are_mirrored(kind, memory_format):
    images = pixels(kind=kind).contiguous(memory_format=memory_format)
    mirrored = flip(images, torch.tensor([True, False, False, True]))
    for place, chosen in enumerate([True, False, False, True]):
        assert torch.equal(mirrored[place], peer.horizontal_flip(images[place]) if chosen else images[place])
    assert flip(images[:0], torch.zeros(0, dtype=torch.bool)).shape == (0, 3, 64, 64)


def test_crops_of_one_image():
    image = pixels(1)[0]
    cut = windows(image, torch.tensor([[0, 5], [3, 0]]), 8)
    assert torch.equal(cut, torch.stack([image[:, :8, 5:13], image[:, 3:11, :8]]))


@pytest.mark.parametrize("resize", [resize_boxes, resize_by_products])
@pytest.mark.parametrize("size", [224, 40, 17])
def test_boxes_are_resized_as_torchvisions_resized_crop(resize, size):
    images = pixels(6)
    boxes = torch.tensor(
        [[0, 0, 64, 64], [10, 20, 30, 40], [63, 0, 1, 64], [0, 0, 20, 20], [5, 5, 17, 23], [0, 24, 40, 40]]
    )
    expected = torch.stack(
        [
            peer.resized_crop(image, *box, [size, size], antialias=True)
            for image, box in zip(images, boxes.tolist(), strict=True)
        ]
    )
    torch.testing.assert_close(resize(images, boxes, size), expected, atol=1e-5, rtol=0)
    assert resize(images[:0], boxes[:0], size).shape == (0, 3, size, size)


@pytest.mark.parametrize("resize", [resize_boxes, resize_by_products])
@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_boxes_of_the_chosen_are_mirrored(resize, kind):
    images, chosen = (
        pixels(4, kind=kind).to(memory_format=torch.channels_last),
        torch.tensor([True, False, True, False]),
    )
    boxes = torch.tensor([[0, 0, 64, 64], [10, 20, 30, 40], [63, 1, 1, 7], [5, 5, 17, 23]])
    plain = resize(images, boxes, 40)
    torch.testing.assert_close(resize(images, boxes, 40, chosen), flip(plain, chosen), atol=1e-4, rtol=0)


class InTf32(TorchDispatchMode):
    """Rounds the factors of matrix products to the 11 significant bits of TF32, as a GPU does."""

    products = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.bmm.default:
            self.products += 1
            args = [
                torch.ldexp(torch.round(mantissa * 2**11), power - 11) for mantissa, power in map(torch.frexp, args)
            ]
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["noise", "white", "black or white"])
def test_products_in_tf32_change_a_pixel_by_at_most_a_fifth_of_a_grey_level(kind):
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (16, 3, 256, 256), generator=random, dtype=torch.uint8)
    images = {"noise": images, "white": torch.full_like(images, 255), "black or white": images // 128 * 255}[kind]
    boxes = torch.from_numpy(random_boxes((256, 256), torch.rand(16, 22, generator=random).double().numpy()))
    exact = resize_by_products(images, boxes, 224)
    with InTf32() as mode:
        rounded = resize_by_products(images, boxes, 224)
    assert mode.products == 2
    assert 0.01 < (rounded - exact).abs().max() < 0.2


def test_grey_levels_become_the_same_numbers_on_every_device():
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(unit(levels), levels / 255)  # the division that other devices use
    assert torch.equal(unit(levels.float()), levels / 255)


def test_rotation_and_scaling_are_torchvisions_affine_away_from_the_edge():
    images, degrees, factors = pixels(4), torch.tensor([0.0, 90.0, -20.0, 7.0]), torch.tensor([1.0, 1.0, 1.2, 0.9])
    ours = rotate_and_scale(images, degrees, factors)
    for place in range(4):
        # torchvision's affine turns clockwise.
        expected = peer.affine(
            images[place], -float(degrees[place]), [0, 0], float(factors[place]), [0, 0], InterpolationMode.BILINEAR
        )
        inner = slice(12, -12)
        torch.testing.assert_close(ours[place, :, inner, inner], expected[:, inner, inner], atol=1e-4, rtol=0)
    torch.testing.assert_close(ours[0], images[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(ours[1], images[1].rot90(1, (1, 2)), atol=1e-4, rtol=0)


def test_rotation_or_scaling_can_be_missing():
    images, one = pixels(2), torch.ones(2)
    assert torch.equal(rotate_and_scale(images, one, None), rotate_and_scale(images, one, one))
    assert torch.equal(rotate_and_scale(images, None, one * 1.1), rotate_and_scale(images, one * 0, one * 1.1))
    assert rotate_and_scale(images[:0], one[:0], None).shape == (0, 3, 64, 64)


def test_pixels_from_outside_repeat_the_edge():
    image = torch.full((1, 3, 32, 32), 0.7)
    torch.testing.assert_close(rotate_and_scale(image, torch.tensor([45.0]), torch.tensor([0.5])), image)


def test_jitter_is_torchvisions_brightness_contrast_saturation():
    images = pixels(5)
    factors = torch.tensor([[1, 1, 1], [1.4, 1, 1], [1, 0.6, 1], [1, 1, 0], [0.6, 1.4, 1.3]])
    ours = jitter(images, factors)
    for image, (brightness, contrast, saturation), changed in zip(images, factors.tolist(), ours, strict=True):
        expected = peer.adjust_contrast(peer.adjust_brightness(image, brightness), contrast)
        torch.testing.assert_close(changed, peer.adjust_saturation(expected, saturation), atol=1e-4, rtol=0)


def test_the_published_first_component_moves_an_image_by_the_known_grey_levels():
    vectors = torch.tensor([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
    values = torch.tensor([0.2175, 0.0188, 0.0045])
    amounts = torch.tensor([[0.1, 0, 0]])
    literal = 255 * colour_shift(amounts, values, vectors)
    assert literal.norm().item() == pytest.approx(5.5, abs=0.05)
    assert literal[0, 0].abs().item() == pytest.approx(3.2, abs=0.1)
    assert (255 * colour_shift(amounts, values.sqrt(), vectors)).norm().item() == pytest.approx(11.9, abs=0.05)


def test_the_shift_is_a_sum_over_components():
    vectors, values, amounts = torch.randn(3, 3), torch.rand(3), torch.randn(5, 3)
    for ours, amount in zip(colour_shift(amounts, values, vectors).tolist(), amounts.tolist(), strict=True):
        expected = [math.fsum(float(vectors[c, i]) * amount[i] * float(values[i]) for i in range(3)) for c in range(3)]
        assert ours == pytest.approx(expected, abs=1e-5)


def test_ten_views_are_torchvisions_ten_crop():
    images = pixels(3, kind=torch.uint8)
    views, draws = ten_views(images, 48)
    # torchvision mirrors before it crops, so its mirrored left is our mirrored right.
    order = [0, 1, 2, 3, 4, 6, 5, 8, 7, 9]
    expected = torch.cat([torch.stack(TenCrop(48)(image))[order] for image in images])
    assert torch.equal(flip(views, draws.flip), expected)
    corners = draws.corner.tolist()
    assert corners[:5] == [[0, 0], [0, 16], [16, 0], [16, 16], [8, 8]] == corners[15:20]


def test_shift_is_torchvisions_crop_after_padding():
    images = torch.arange(2 * 3 * 5 * 7, dtype=torch.uint8).view(2, 3, 5, 7) + 1
    padded = torch.nn.functional.pad(images, [4] * 4)
    for down, right in itertools.product(range(-4, 5), repeat=2):
        moved = shift(images, torch.tensor([[down, right], [0, 0]]))
        assert torch.equal(moved[0], padded[0, :, 4 + down : 9 + down, 4 + right : 11 + right])
        assert torch.equal(moved[1], images[1])


def test_jitter_of_grey_images_is_torchvisions_and_ignores_saturation():
    images, factors = torch.rand(50, 1, 8, 8), 0.6 + 0.8 * torch.rand(50, 3)
    for image, factor, changed in zip(images, factors.tolist(), jitter(images, factors), strict=True):
        expected = peer.adjust_contrast(peer.adjust_brightness(image, factor[0]), factor[1])
        torch.testing.assert_close(changed, expected, atol=1e-4, rtol=0)
    assert torch.equal(jitter(images, factors), jitter(images, factors * torch.tensor([1, 1, 9])))
