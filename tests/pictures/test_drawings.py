"""The pictures of a run, checked pixel by pixel where it matters."""

import numpy as np
import pytest
import torch

from alexnet_lab.pictures.confusion import EMPTY, RIGHT, confusion_picture
from alexnet_lab.pictures.filters import filters_picture
from alexnet_lab.pictures.neighbours import chosen_queries, nearest, neighbours_picture
from alexnet_lab.pictures.predictions import predictions_picture
from alexnet_lab.pictures.tiles import batch_picture, tile

CLASSES = ("cat", "dog", "a name that is far too long for the place that there is for it")


@pytest.mark.parametrize(("kernels", "towers", "size"), [(96, 2, (852, 352)), (96, 1, (626, 426)), (6, 1, (314, 218))])
def test_kernels_of_the_towers_are_shown_side_by_side(kernels: int, towers: int, size: tuple[int, int]) -> None:
    side = 11 if kernels == 96 else 5
    assert filters_picture(torch.randn(kernels, 3, side, side), towers).size == size


def test_kernel_is_scaled_by_its_largest_weight_and_zero_is_grey() -> None:
    weight = torch.zeros(20, 3, 11, 11)
    weight[0, 0, 0, 0], weight[0, 1, 10, 10] = 0.02, -0.01
    pixels = np.asarray(filters_picture(weight))
    assert pixels[16, 16].tolist() == [255, 128, 128]
    assert pixels[16 + 43, 16 + 43].tolist() == [128, 64, 128]
    assert pixels[16 + 20, 16 + 50 + 20].tolist() == [128, 128, 128]


def test_kernels_of_one_channel_are_grey() -> None:
    pixels = np.asarray(filters_picture(torch.randn(6, 1, 5, 5)))
    assert np.ptp(pixels.astype(int), axis=2).max() == 0


def test_neighbours_are_sorted_by_euclidean_distance() -> None:
    features = torch.tensor([[0.0, 0.0], [3.0, 4.0], [1.0, 0.0], [0.0, 2.0]])
    assert nearest(features, torch.tensor([0, 1]), 3).tolist() == [[2, 3, 1], [3, 2, 0]]


def test_queries_are_the_first_images_of_different_classes() -> None:
    assert chosen_queries(torch.tensor([3, 3, 1, 3, 0, 1]), 2).tolist() == [0, 2]
    assert chosen_queries(torch.tensor([3, 3, 1, 3, 0, 1]), 5).tolist() == [0, 2, 4]


def test_neighbours_of_two_images_are_drawn_too() -> None:
    images = torch.zeros(2, 1, 28, 28, dtype=torch.uint8)
    picture = neighbours_picture(images, torch.randn(2, 4), torch.tensor([0, 1]), CLASSES)
    assert picture.size == (2 * (112 + 12) + 12 + 28, 2 * (112 + 20 + 12) + 12)


def test_confusion_is_shaded_by_the_share_of_the_true_class() -> None:
    counts = torch.tensor([[4, 0, 0], [1, 0, 3], [0, 0, 0]])
    picture = confusion_picture(counts, CLASSES)
    pixels, cell = np.asarray(picture), 56
    left = top = picture.width - 16 - 3 * cell

    def corner(row: int, column: int) -> tuple[int, ...]:
        return tuple(pixels[top + row * cell + 2, left + column * cell + 2].tolist())

    assert corner(0, 0) == tuple(bytes.fromhex(RIGHT[1:]))
    assert corner(0, 1) == corner(1, 1) == corner(2, 2) == EMPTY
    darkness = [sum(EMPTY) - sum(corner(1, column)) for column in (0, 2)]
    assert darkness[0] / darkness[1] == pytest.approx((1 / 3) ** 0.5, abs=0.02)


def test_a_hundred_classes_still_fit_on_a_screen() -> None:
    picture = confusion_picture(torch.eye(100, dtype=torch.int64), [f"class {number}" for number in range(100)])
    assert 1200 <= picture.width <= 1400


def test_small_images_are_enlarged_without_blurring() -> None:
    image = torch.randint(0, 256, (1, 28, 28), dtype=torch.uint8)
    pixels = np.asarray(tile(image))
    assert (pixels[::4, ::4, 0] == image[0].numpy()).all()
    assert len(np.unique(pixels)) == len(image.unique())


def test_batch_is_shown_in_rows_of_eight() -> None:
    images = torch.zeros(10, 3, 224, 224, dtype=torch.uint8)
    assert batch_picture(images, ["cat"] * 10).size == (8 * 124 + 12, 2 * 144 + 12)


def test_predictions_are_the_most_probable_classes_with_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[object] = []
    monkeypatch.setattr("alexnet_lab.pictures.predictions.sheet", lambda *arguments: given.extend(arguments))
    images, labels = torch.zeros(1, 1, 28, 28, dtype=torch.uint8), torch.tensor([1])
    predictions_picture(images, torch.tensor([[0.25, 0.125, 0.625]]), labels, CLASSES)
    assert given[1] == [[(CLASSES[2], 0.625), ("cat", 0.25), ("dog", 0.125)]]
    assert given[2] == ["dog"]
