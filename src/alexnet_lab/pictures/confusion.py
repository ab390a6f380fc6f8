"""The confusion matrix.

Shapes: K classes.
"""

import math
from collections.abc import Sequence

from PIL import Image, ImageColor, ImageDraw
from torch import Tensor

from alexnet_lab.pictures.lettering import INK, PALE, PAPER, font, lettered, write

LARGEST, SMALLEST, WHOLE = 56, 12, 1000
"""Largest and smallest side of a cell, and approximate side of the matrix, in pixels."""
NUMBERED = 30
"""Smallest side of a cell that shows its number."""
LONGEST_NAME, MARGIN, TITLE = 150, 16, 28
RIGHT, WRONG = "#2f6fb7", "#d1495b"
EMPTY = (245, 246, 248)


def confusion_picture(counts: Tensor, classes: Sequence[str]) -> Image.Image:
    """The matrix of `counts[true, predicted]`, int64 [K, K]: a row per true class, shaded by the share of its images.

    The shade grows with the square root of the share, so that rare errors are visible.
    """
    number = len(classes)
    cell = max(SMALLEST, min(LARGEST, WHOLE // number))
    size = min(15, cell - 2)
    lengths = [letters.getlength(text) for text, letters in (lettered(name, size) for name in classes)]
    room = min(LONGEST_NAME, 16 + math.ceil(max(lengths)))
    left = top = MARGIN + TITLE + room
    picture = Image.new("RGB", (left + number * cell + MARGIN, top + number * cell + MARGIN), PAPER)
    draw = ImageDraw.Draw(picture)
    digits = font(min(16, cell // 3 + 1))
    for row, (counts_of_class, total) in enumerate(zip(counts.tolist(), counts.sum(1).tolist(), strict=True)):
        for column, count in enumerate(counts_of_class):
            share = count / total if total else 0.0
            x, y = left + column * cell, top + row * cell
            colour = _shade(RIGHT if row == column else WRONG, share)
            draw.rectangle((x, y, x + cell - 2, y + cell - 2), colour)
            if count and cell >= NUMBERED:
                ink = PAPER if share > 0.4 else INK
                draw.text((x + cell // 2 - 1, y + cell // 2 - 1), str(count), ink, digits, anchor="mm")
    _write_names(picture, classes, cell, left, room, size)
    return picture


def _write_names(picture: Image.Image, classes: Sequence[str], cell: int, start: int, room: int, size: int) -> None:
    """Write the true classes on the left, and the predicted classes at the top, rotated."""
    draw = ImageDraw.Draw(picture)
    for place, name in enumerate(classes):
        write(draw, (start - 8, start + place * cell + cell // 2 - 1), name, size, room - 14, anchor="rm")
        upright = Image.new("RGB", (room, cell), PAPER)
        write(ImageDraw.Draw(upright), (8, cell // 2 - 1), name, size, room - 14, anchor="lm")
        picture.paste(upright.rotate(90, expand=True), (start + place * cell, start - room))
    width = len(classes) * cell
    axis = Image.new("RGB", (width, TITLE), PAPER)
    ImageDraw.Draw(axis).text((width // 2, TITLE // 2), "true", PALE, font(16), anchor="mm")
    picture.paste(axis.rotate(90, expand=True), (MARGIN // 2, start))
    draw.text((start + width // 2, MARGIN // 2 + TITLE // 2), "predicted", PALE, font(16), anchor="mm")


def _shade(colour: str, share: float) -> tuple[int, ...]:
    strength, full_colour = share**0.5, ImageColor.getrgb(colour)
    return tuple(round(pale + (full - pale) * strength) for pale, full in zip(EMPTY, full_colour, strict=True))
