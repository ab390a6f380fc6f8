"""Images with their most probable classes as bars, as in the paper's figure 4 on the left."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageOps

from alexnet_lab.pictures.lettering import INK, PALE, PAPER, font, write

SIDE = 256
"""Side of an image on the sheet, and width of its bars, in pixels."""
GAP = 24
CAPTION, NOTE = 34, 22
BAR = 26
"""Distance from one bar to the next."""
PADDING = 6
TEXT_SIZE, CAPTION_SIZE, NOTE_SIZE = 15, 18, 13

TRACK, RIGHT, OTHER = "#f3f4f6", "#f2a39b", "#a9c4e4"
"""Colours: background of a bar, bar of the true class, bar of another class."""


def sheet(
    images: Sequence[Image.Image],
    rows: Sequence[Sequence[tuple[str, float]]],
    truths: Sequence[str | None],
    columns: int = 4,
    notes: Sequence[str] | None = None,
    beside: Sequence[tuple[Image.Image, str]] = (),
) -> Image.Image:
    """One RGB picture of all images, each with its classes and their probabilities below.

    Args:
        images: any mode and size; the centre square is shown.
        rows: per image, classes with probabilities in [0, 1], most probable first.
        truths: per image, the true class, which is written below the image and has a red bar; None if unknown.
        columns: largest number of images per row.
        notes: per image, a pale line below the true class; a long one is shown with its end.
        beside: empty, or per image a second one for its right side, with a caption.
    """
    assert images
    assert len(images) == len(rows) == len(truths)
    columns = min(columns, len(images))
    room = 2 * SIDE + PADDING if beside else SIDE
    head = CAPTION + (NOTE if notes else 0)
    width, height = room + GAP, SIDE + head + max(map(len, rows)) * BAR + GAP
    lines = -(-len(images) // columns)
    picture = Image.new("RGB", (columns * width + GAP, lines * height + GAP), PAPER)
    for place, (image, row, truth) in enumerate(zip(images, rows, truths, strict=True)):
        left, top = GAP + place % columns * width, GAP + place // columns * height
        draw = ImageDraw.Draw(picture)
        picture.paste(square(image), (left, top))
        _write_below(draw, left, top + SIDE, truth)
        if beside:
            second, caption = beside[place]
            picture.paste(square(second), (left + SIDE + PADDING, top))
            _write_below(draw, left + SIDE + PADDING, top + SIDE, caption)
        if notes:
            middle = (left + SIDE // 2, top + SIDE + CAPTION + NOTE // 2 - 4)
            write(draw, middle, notes[place], NOTE_SIZE, SIDE, PALE, keep="end")
        _draw_bars(draw, left, top + SIDE + head, room, row, truth)
    return picture


def square(image: Image.Image) -> Image.Image:
    """The centre square, RGB with sides of `SIDE`; small images keep sharp pixels."""
    small = max(image.size) <= SIDE // 4
    resampling = Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS
    return ImageOps.fit(image.convert("RGB"), (SIDE, SIDE), resampling)


def _write_below(draw: ImageDraw.ImageDraw, left: int, top: int, text: str | None) -> None:
    if text:
        write(draw, (left + SIDE // 2, top + CAPTION // 2), text, CAPTION_SIZE, SIDE)


def _draw_bars(
    draw: ImageDraw.ImageDraw, left: int, top: int, width: int, row: Sequence[tuple[str, float]], truth: str | None
) -> None:
    letters = font(TEXT_SIZE)
    for place, (name, probability) in enumerate(row):
        upper = top + place * BAR
        lower, centre = upper + BAR - 5, upper + (BAR - 4) // 2
        draw.rectangle((left, upper, left + width - 1, lower), TRACK)
        if length := round(width * probability):
            draw.rectangle((left, upper, left + length - 1, lower), RIGHT if name == truth else OTHER)
        percent = f"{probability:.1%}"
        room = width - 3 * PADDING - draw.textlength(percent, letters)
        write(draw, (left + PADDING, centre), name, TEXT_SIZE, room, anchor="lm")
        draw.text((left + width - PADDING, centre), percent, INK, letters, anchor="rm")
