"""Small images side by side with a word below each.

Shapes: N images, C channels, S their side.
"""

from collections.abc import Sequence

from PIL import Image, ImageDraw
from torch import Tensor

from alexnet_lab.pictures.lettering import INK, PAPER, fitting, font

SIDE = 112
"""Of a tile at most, pixels."""
GAP, CAPTION, TEXT_SIZE = 12, 20, 13


def picture_of(image: Tensor) -> Image.Image:
    """uint8 [C, S, S] as RGB, or grey unless C is 3."""
    if image.shape[0] != 3:
        return Image.fromarray(image.float().mean(0).byte().numpy()).convert("RGB")
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())


def tile(image: Tensor) -> Image.Image:
    """uint8 [C, S, S] at most `SIDE` wide; small images are enlarged by a whole number, so that pixels stay sharp."""
    picture = picture_of(image)
    if picture.width <= SIDE // 2:
        side = picture.width * (SIDE // picture.width)
        return picture.resize((side, side), Image.Resampling.NEAREST)
    return picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def rows_of_tiles(rows: Sequence[Sequence[tuple[Tensor, str, str]]], apart: int = 0) -> Image.Image:
    """Rows of (image uint8 [C, S, S], word below it, the word's colour), all images of one size.

    apart: pixels by which the first column stands off the others.
    """
    side = tile(rows[0][0][0]).width
    width, height = side + GAP, side + CAPTION + GAP
    size = (max(map(len, rows)) * width + GAP + apart, len(rows) * height + GAP)
    picture = Image.new("RGB", size, PAPER)
    draw, letters = ImageDraw.Draw(picture), font(TEXT_SIZE)
    for line, row in enumerate(rows):
        for place, (image, word, colour) in enumerate(row):
            left, top = GAP + place * width + apart * (place > 0), GAP + line * height
            picture.paste(tile(image), (left, top))
            middle = (left + side // 2, top + side + CAPTION // 2)
            draw.text(middle, fitting(draw, word, side + GAP // 2, letters), colour, letters, anchor="mm")
    return picture


def batch_picture(images: Tensor, words: Sequence[str], columns: int = 8) -> Image.Image:
    """uint8 [N, C, S, S], N > 0, each above its word, in rows of `columns`."""
    tiles = [(image, word, INK) for image, word in zip(images, words, strict=True)]
    return rows_of_tiles([tiles[start : start + columns] for start in range(0, len(tiles), columns)])
