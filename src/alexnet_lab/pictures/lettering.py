"""Text on pictures: the font that has its characters, and shortening a text to fit a line."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Literal
from unicodedata import combining, normalize

from PIL import ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
End = Literal["start", "end"]
PAPER, INK, PALE = "#ffffff", "#1b1b1b", "#6b7280"
SYSTEM_FONTS = (
    *("DejaVuSans.ttf", "NotoSans-Regular.ttf", "NotoSansCJK-Regular.ttc", "Arial Unicode.ttf"),
    *("arial.ttf", "msyh.ttc", "YuGothM.ttc", "malgun.ttf"),
)
"""Fonts of Linux, macOS and Windows, tried for texts with characters that Pillow's default font lacks."""
MISSING = "\uffff"
"""No character: every font draws its sign for a missing one."""


@lru_cache
def font(size: int) -> Font:
    """Pillow's default font, which has ASCII and a few signs; `size` in pixels."""
    return ImageFont.load_default(size)


@lru_cache
def lettered(text: str, size: int) -> tuple[str, Font]:
    """The text in one line as it can be drawn, and the font for it.

    The font is the default one, or of the system's that which has most of the characters. Characters that it lacks
    lose their accents, and those that are still missing become `?`.
    """
    text = " ".join(text.split())
    if text.isascii():
        return text, font(size)
    text = normalize("NFC", text)
    letters = max((font(size), *_system_fonts(size)), key=lambda one: sum(_has(one, sign) for sign in text))
    return "".join(sign if _has(letters, sign) else _plain(letters, sign) for sign in text), letters


@lru_cache
def _system_fonts(size: int) -> tuple[Font, ...]:
    return tuple(_found(size))


def _found(size: int) -> Iterator[Font]:
    for name in SYSTEM_FONTS:
        try:
            yield ImageFont.truetype(name, size)
        except OSError:
            continue


@lru_cache(4096)
def _has(letters: Font, sign: str) -> bool:
    """Whether the font has this character."""
    drawn, missing = letters.getmask(sign), letters.getmask(MISSING)
    return drawn.size != missing.size or bytes(drawn) != bytes(missing)


def _plain(letters: Font, sign: str) -> str:
    """The character without accents, `?` if the font lacks it too; '' for an accent alone."""
    plain = "".join(part for part in normalize("NFKD", sign) if not combining(part))
    return plain if all(_has(letters, part) for part in plain) else "?"


def write(
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    size: int,
    room: float,
    colour: str = INK,
    anchor: str = "mm",
    keep: End = "start",
) -> None:
    """Write the text in one line at `place`, shortened to at most `room` pixels by leaving out all but its `keep`."""
    text, letters = lettered(text, size)
    draw.text(place, fitting(draw, text, room, letters, keep), colour, letters, anchor=anchor)


def fitting(draw: ImageDraw.ImageDraw, text: str, room: float, letters: Font, keep: End = "start") -> str:
    """The text, shortened to at most `room` pixels."""
    if draw.textlength(text, letters) <= room:
        return text
    if keep == "end":
        while text and draw.textlength(f"...{text}", letters) > room:
            text = text[1:]
        return f"...{text.lstrip()}"
    while text and draw.textlength(f"{text}...", letters) > room:
        text = text[:-1]
    return f"{text.rstrip()}..."
