"""Text on pictures: Pillow's default font, and shortening a text to fit a line."""

from functools import lru_cache

from PIL import ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
PAPER, INK, PALE = "#ffffff", "#1b1b1b", "#6b7280"


@lru_cache
def font(size: int) -> Font:
    """Pillow's default font; `size` in pixels."""
    return ImageFont.load_default(size)


def fitting(draw: ImageDraw.ImageDraw, text: str, room: float, letters: Font) -> str:
    """The text in one line, shortened to at most `room` pixels."""
    text = " ".join(text.split())
    if draw.textlength(text, letters) <= room:
        return text
    while text and draw.textlength(f"{text}...", letters) > room:
        text = text[:-1]
    return f"{text.rstrip()}..."
