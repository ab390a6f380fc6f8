"""The reliability diagram: accuracy over confidence, as in Guo et al. 2017, figure 1."""

from collections.abc import Sequence

from PIL import Image, ImageDraw

from alexnet_lab.pictures.lettering import INK, PALE, PAPER, font

SIDE, LEFT, TOP, GAP, COUNTS, BOTTOM, RIGHT = 450, 80, 50, 26, 90, 70, 30
"""Side of the diagram, height of the histogram below it, and margins, in pixels."""
BAR, MISSING, GRID = "#2f6fb7", "#f2a39b", "#e5e7eb"
"""Colours: accuracy, the gap between accuracy and confidence, lines."""
OneBin = tuple[float, float, int, float | None, float | None]


def reliability_picture(bins: Sequence[OneBin], error: float) -> Image.Image:
    """Draw `bins` (low, high, images, mean confidence, accuracy), and how many images each has; `error` is the ECE.

    Bars that end below the diagonal are of an over-confident network, those above it of an under-confident one.
    """
    width, floor = LEFT + SIDE + RIGHT, TOP + SIDE
    base = floor + GAP + COUNTS
    canvas = Image.new("RGB", (width, base + BOTTOM), PAPER)
    draw, letters = ImageDraw.Draw(canvas), font(14)
    for tenths in range(0, 11, 2):
        along = SIDE * tenths / 10
        draw.line((LEFT, floor - along, LEFT + SIDE, floor - along), GRID)
        draw.text((LEFT - 8, floor - along), f"{tenths / 10:.1f}", PALE, letters, anchor="rm")
        draw.text((LEFT + along, base + 14), f"{tenths / 10:.1f}", PALE, letters, anchor="mm")
    most = max(images for _, _, images, _, _ in bins)
    for low, high, images, confidence, accuracy in bins:
        left, right = LEFT + low * SIDE + 1, LEFT + high * SIDE - 2
        if accuracy is not None and confidence is not None:
            draw.rectangle((left, floor - accuracy * SIDE, right, floor), BAR)
            upper, lower = sorted((floor - accuracy * SIDE, floor - confidence * SIDE))
            draw.rectangle((left, upper, right, lower), MISSING)
            draw.line((left, floor - accuracy * SIDE, right, floor - accuracy * SIDE), BAR, 2)
        if images:
            draw.rectangle((left, base - max(1, COUNTS * images / most), right, base), PALE)
    draw.line((LEFT, floor, LEFT + SIDE, TOP), INK, 2)
    draw.rectangle((LEFT, TOP, LEFT + SIDE, floor), None, PALE)
    _label(draw, (LEFT + 14, TOP + 18), "above the diagonal: under-confident", "lm")
    _label(draw, (LEFT + SIDE - 14, floor - 18), "below the diagonal: over-confident", "rm")
    draw.line((LEFT, base, LEFT + SIDE, base), PALE)
    total = sum(images for _, _, images, _, _ in bins)
    title = f"expected calibration error {error:.4f}, {total:,} images"
    draw.text((LEFT + SIDE / 2, TOP / 2), title, INK, font(16), anchor="mm")
    draw.text(
        (LEFT + SIDE / 2, base + 42), "confidence (probability of the predicted class)", INK, letters, anchor="mm"
    )
    _upright(canvas, "accuracy; red: gap to the confidence", TOP, SIDE)
    _upright(canvas, "images", floor + GAP, COUNTS)
    return canvas


def _label(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, anchor: str) -> None:
    """A text on its own ground, since bars may be behind it."""
    letters = font(14)
    left, top, right, bottom = draw.textbbox(place, text, letters, anchor)
    draw.rectangle((left - 6, top - 5, right + 6, bottom + 5), PAPER, GRID)
    draw.text(place, text, INK, letters, anchor)


def _upright(canvas: Image.Image, text: str, top: int, height: int) -> None:
    axis = Image.new("RGB", (height, 26), PAPER)
    ImageDraw.Draw(axis).text((height // 2, 13), text, INK, font(14), anchor="mm")
    canvas.paste(axis.rotate(90, expand=True), (10, top))
