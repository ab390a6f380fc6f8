"""Names that Pillow's default font cannot draw; no test depends on the fonts of the system."""

from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image, ImageDraw

from alexnet_lab.pictures import lettering
from alexnet_lab.pictures.lettering import fitting, font, lettered, write


@pytest.fixture(autouse=True)
def _nothing_remembered() -> Iterator[None]:
    lettered.cache_clear()
    lettering._system_fonts.cache_clear()
    yield
    lettered.cache_clear()
    lettering._system_fonts.cache_clear()


@pytest.mark.parametrize(
    ("name", "drawn"),
    [
        ("B\u00e4r \u00e9", "Bar e"),
        ("Ba\u0308r", "Bar"),
        ("\u0160koda  \u30ab\n\u8c9d", "Skoda ? ?"),
        ("\ud55c", "?"),
        ("stra\u00dfe", "stra?e"),
        ("it\u2019s", "it\u2019s"),
    ],
)
def test_without_a_font_of_the_system_accents_are_removed_and_other_characters_become_question_marks(
    monkeypatch, name, drawn
) -> None:
    monkeypatch.setattr(lettering, "SYSTEM_FONTS", ("no-such-font.ttf",))
    assert lettered(name, 15) == (drawn, font(15))


def test_font_of_the_system_is_taken_that_has_most_characters(monkeypatch) -> None:
    latin, japanese = font(16), font(17)
    has = {font(15): "", latin: "\u00e4\u00e9", japanese: "\u30ab\u00e4"}
    monkeypatch.setattr(lettering, "_system_fonts", lambda size: (latin, japanese))
    monkeypatch.setattr(lettering, "_has", lambda letters, sign: sign.isascii() or sign in has[letters])
    assert lettered("B\u00e4r", 15) == ("B\u00e4r", latin)
    assert lettered("\u30ab\u30ab B\u00e4r \u00e9", 15) == ("\u30ab\u30ab B\u00e4r e", japanese)


def test_fonts_of_the_system_are_not_searched_for_ascii(monkeypatch) -> None:
    monkeypatch.setattr(lettering, "_system_fonts", lambda size: pytest.fail("searched"))
    assert lettered(" sea \n lion", 15) == ("sea lion", font(15))


def test_text_that_is_too_long_keeps_its_start_or_its_end() -> None:
    draw, path = ImageDraw.Draw(Image.new("RGB", (1, 1))), "a long folder/" * 9 + "val_0042.JPEG, loss 8.87"
    shown = fitting(draw, path, 256, font(13), "end")
    assert shown.startswith("...")
    assert shown.endswith("val_0042.JPEG, loss 8.87")
    assert 220 < draw.textlength(shown, font(13)) <= 256
    assert fitting(draw, path, 256, font(13)).startswith("a long folder/a long")
    picture = Image.new("L", (300, 20), 255)
    write(ImageDraw.Draw(picture), (20, 10), path, 13, 256, "black", "lm", keep="end")
    inked = np.flatnonzero((np.asarray(picture) < 128).any(0))
    assert inked.min() >= 20
    assert inked.max() <= 20 + 256
