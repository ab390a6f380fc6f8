import numpy as np
import pytest
import torch
from PIL import Image

from alexnet_lab.pictures.gradcam import heat_picture
from alexnet_lab.pictures.sheet import BAR, CAPTION, GAP, PADDING, SIDE, sheet


@pytest.mark.parametrize("channels", [1, 3])
def test_heat_is_red_at_the_largest_value_and_absent_at_zero(channels: int) -> None:
    values = torch.zeros(13, 13)
    values[2, 9] = 0.001  # scaled to the largest value
    picture = np.asarray(heat_picture(np.full((channels, 224, 224), 128, np.uint8), values)).astype(int)
    row, column = round(2.5 / 13 * SIDE), round(9.5 / 13 * SIDE)
    red, green, blue = picture[row, column]
    assert red > 150
    assert max(green, blue) < 80
    assert (picture[SIDE // 2 :] == 128).all()
    assert (picture[:, : SIDE // 2] == 128).all()


def test_map_without_evidence_leaves_the_grey_image() -> None:
    picture = np.asarray(heat_picture(np.full((3, 28, 28), 7, np.uint8), torch.zeros(5, 5)))
    assert (picture == 7).all()


def test_sheet_shows_the_second_picture_right_of_the_image() -> None:
    images, seconds = [Image.new("RGB", (28, 28), "black")] * 3, [(Image.new("RGB", (SIDE, SIDE), "red"), "tench")] * 3
    picture = sheet(images, [[("tench", 1.0)]] * 3, [None] * 3, 2, beside=seconds)
    assert picture.size == (2 * (2 * SIDE + PADDING + GAP) + GAP, 2 * (SIDE + CAPTION + BAR + GAP) + GAP)
    pixels = np.asarray(picture)
    assert pixels[GAP + 5, GAP + SIDE - 1].tolist() == [0, 0, 0]
    left = GAP + SIDE + PADDING
    assert (pixels[GAP : GAP + SIDE, left : left + SIDE] == [255, 0, 0]).all()
    below = pixels[GAP + SIDE : GAP + SIDE + CAPTION]
    assert (below[:, GAP : GAP + SIDE] == 255).all()  # no true class
    assert (below[:, left : left + SIDE] != 255).any()
