import numpy as np
import pytest
from PIL import Image, ImageColor

from alexnet_lab.pictures.sheet import BAR, CAPTION, GAP, OTHER, RIGHT, SIDE, sheet

ROW = [("tench", 0.75), ("church", 0.25)]


def pixels_of(picture: Image.Image, colour: str) -> int:
    return int((np.asarray(picture) == ImageColor.getrgb(colour)).all(2).sum())


def test_bars_are_as_long_as_the_probabilities_and_the_true_class_is_red() -> None:
    picture = sheet([Image.new("RGB", (300, 200), "black")], [[("", 0.75), ("a", 0.0), ("", 0.25)]], ["a"])
    height = BAR - 4
    painted = pixels_of(picture, OTHER)
    assert 0.9 < painted / (SIDE * height) <= 1  # the percentages cover a part
    assert pixels_of(picture, RIGHT) == 0
    right = sheet([Image.new("RGB", (300, 200), "black")], [[("a", 1.0)]], ["a"])
    assert pixels_of(right, RIGHT) > 0.85 * SIDE * height
    assert pixels_of(right, OTHER) == 0


@pytest.mark.parametrize(("images", "columns", "lines"), [(1, 1, 1), (4, 4, 1), (5, 4, 2), (9, 4, 3)])
def test_sheet_is_as_large_as_its_images_need(images, columns, lines) -> None:
    picture = sheet([Image.new("L", (28, 28))] * images, [ROW] * images, [None] * images)
    assert picture.size == (columns * (SIDE + GAP) + GAP, lines * (SIDE + CAPTION + 2 * BAR + GAP) + GAP)


def test_centre_square_is_shown_for_any_image_mode() -> None:
    image = Image.new("RGBA", (512, 256), "red")
    image.paste((0, 0, 255, 255), (128, 0, 384, 256))
    shown = sheet([image], [ROW], [None]).crop((GAP, GAP, GAP + SIDE, GAP + SIDE))
    assert np.asarray(shown).reshape(-1, 3).tolist().count([0, 0, 255]) > 0.98 * SIDE**2


def test_long_names_stay_inside_their_image() -> None:
    long = "a name " * 40
    picture = np.asarray(sheet([Image.new("L", (9, 9))], [[(long, 0.5)]], [long]))
    assert (picture[:, :GAP] == 255).all()
    assert (picture[:, GAP + SIDE :] == 255).all()
