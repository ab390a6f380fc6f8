"""Small images in rows, with a word below each.

Shapes: N images, C channels, S image size.
"""

from collections.abc import Sequence

from PIL import Image, ImageDraw
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from alexnet_lab.pictures.lettering import INK, PALE, PAPER, write

SIDE = 112
"""Largest side of a tile in pixels."""
GAP, CAPTION, TEXT_SIZE = 12, 20, 13
LINE, HEAD = 16, 24
"""Distance from one line of words to the next, and height of the titles of columns."""


def picture_of(image: Tensor) -> Image.Image:
    """uint8 [C, S, S] as an RGB image; grey if C is not 3."""
    return to_pil_image(image if len(image) == 3 else image.float().mean(0, keepdim=True).byte()).convert("RGB")


def tile(image: Tensor) -> Image.Image:
    """uint8 [C, S, S], at most `SIDE` wide; small images are enlarged by an integer factor to keep pixels sharp."""
    picture = picture_of(image)
    if picture.width <= SIDE // 2:
        side = picture.width * (SIDE // picture.width)
        return picture.resize((side, side), Image.Resampling.NEAREST)
    return picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def rows_of_tiles(
    rows: Sequence[Sequence[tuple[Tensor, str, str]]], apart: int = 0, heads: Sequence[str] = ()
) -> Image.Image:
    """Draw rows of (image uint8 [C, S, S], lines of words below it, their colour); all images have the same size.

    apart: extra distance between the first column and the others, in pixels. heads: the title of each column, if any.
    """
    side = tile(rows[0][0][0]).width
    caption = CAPTION + LINE * max(words.count("\n") for row in rows for _, words, _ in row)
    width, height, head = side + GAP, side + caption + GAP, HEAD if heads else 0
    size = (max(map(len, rows)) * width + GAP + apart, head + len(rows) * height + GAP)
    picture = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(picture)
    lefts = [GAP + place * width + apart * (place > 0) for place in range(max(map(len, rows)))]
    for left, word in zip(lefts, heads, strict=False):
        write(draw, (left + side // 2, GAP + head // 2 - 4), word, TEXT_SIZE, side + GAP // 2, PALE)
    for line, row in enumerate(rows):
        top = GAP + head + line * height
        for left, (image, words, colour) in zip(lefts, row, strict=False):
            picture.paste(tile(image), (left, top))
            for below, word in enumerate(words.split("\n")):
                middle = (left + side // 2, top + side + CAPTION // 2 + LINE * below)
                write(draw, middle, word, TEXT_SIZE, side + GAP // 2, colour)
    return picture


def batch_picture(images: Tensor, words: Sequence[str], columns: int = 8) -> Image.Image:
    """uint8 [N, C, S, S], N > 0, with a word below each image, in rows of `columns`."""
    tiles = [(image, word, INK) for image, word in zip(images, words, strict=True)]
    return rows_of_tiles([tiles[start : start + columns] for start in range(0, len(tiles), columns)])
