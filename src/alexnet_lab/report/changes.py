"""Two evaluations of the same images: the numbers, the images that changed, and a page with them."""

import base64
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from alexnet_lab.command_line import from_here
from alexnet_lab.errors import UserError, printable
from alexnet_lab.report import page
from alexnet_lab.report.intervals import p_text
from alexnet_lab.report.paired import Paired, paired
from alexnet_lab.report.row_files import Pixels, name_of, picture
from alexnet_lab.rows import Rows, different_images

CONFIDENCE = 0.95
SHOWN = 100
"""Most images of each kind on the page."""
SIDE = 144
"""Side of an image on the page, in pixels."""
COLUMNS = ("sample", "path", "label", "class", "change", "predicted", "probability", "loss")
NOW = ("against_predicted", "against_probability", "against_loss")
Change = Literal["right only in this one", "right only in the other"]
"""`this one` is the checkpoint, `the other` the one that it is compared with."""


@dataclass(frozen=True)
class Changes:
    """What two evaluations of the same images differ in. `names` are those of the two, for the reader."""

    names: tuple[str, str]
    first: Rows
    second: Rows
    top1: Paired
    top5: Paired

    def rows(self, change: Change) -> list[int]:
        """The images that changed in this way, those first whose losses differ most."""
        one, two = self.first.top1, self.second.top1
        found = np.flatnonzero(one & ~two if change == "right only in this one" else ~one & two)
        distance = np.nan_to_num(np.abs(self.first.losses - self.second.losses), nan=np.inf)[found]
        rows: list[int] = found[np.argsort(-distance, kind="stable")].tolist()
        return rows


def compare(names: tuple[str, str], first: Rows, second: Rows) -> Changes:
    """Compare the networks `names` image by image.

    Raises:
        UserError: they were not evaluated on the same images.
    """
    if difference := different_images(first, second):
        raise UserError(
            printable(
                f"{names[0]} and {names[1]} were evaluated on different images ({difference}); a comparison image by "
                "image requires the same images"
            )
        )
    top1, top5 = paired(first.top1, second.top1, CONFIDENCE), paired(first.top5, second.top5, CONFIDENCE)
    return Changes(names, first, second, top1, top5)


def facts(changes: Changes) -> dict[str, Any]:
    """The numbers, for JSON."""
    return {"checkpoint": changes.names[1], "top1": asdict(changes.top1), "top5": asdict(changes.top5)}


def show(changes: Changes) -> None:
    """Print the numbers."""
    table, console = Table("", "top1", "top5", title="compared image by image", title_justify="left"), Console()
    for cells in _numbers(changes):
        table.add_row(*cells)
    console.print(table)
    console.print(f"against: {_short(changes.names[1])}", markup=False, highlight=False, soft_wrap=True)


def _short(names: str) -> str:
    """Checkpoints, separated by ", ", for the reader: a path inside the working folder is relative to it."""
    return ", ".join(from_here(Path(name)) if os.path.isabs(name) else name for name in names.split(", "))


def _numbers(changes: Changes) -> list[tuple[str, str, str]]:
    """What is measured, for top-1 and for top-5."""
    found = (changes.top1, changes.top5)
    lines = {
        name: [f"{right.mean():.4f}" for right in (rows.top1, rows.top5)]
        for name, rows in (("this checkpoint", changes.first), ("against", changes.second))
    }
    lines |= {
        "difference": [f"{one.value:+.4f}" for one in found],
        f"{CONFIDENCE:.0%} interval": [f"[{one.low:+.4f}, {one.high:+.4f}]" for one in found],
        "p (McNemar)": [p_text(one.p) for one in found],
        "right only in this one": [f"{one.only_first:,}" for one in found],
        "right only in the other": [f"{one.only_second:,}" for one in found],
    }
    return [(name, one, two) for name, (one, two) in lines.items()]


def table(changes: Changes) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Columns and rows of the images that only one of the two has right by its most probable class, in their order."""
    kinds: dict[int, Change] = {
        row: kind for kind in ("right only in this one", "right only in the other") for row in changes.rows(kind)
    }
    lines = []
    for row, kind in sorted(kinds.items()):
        rows = changes.first
        path = rows.paths[row] if rows.paths is not None else ""
        head = (int(rows.samples[row]), path, int(rows.labels[row]), rows.classes[int(rows.labels[row])], kind)
        lines.append(head + _predicted(changes.first, row) + _predicted(changes.second, row))
    return [*COLUMNS, *NOW], lines


def _predicted(rows: Rows, row: int) -> tuple[str, float, float]:
    return rows.classes[int(rows.best[row, 0])], float(rows.probabilities[row, 0]), float(rows.losses[row])


def html(changes: Changes, pixels: Pixels, about: Mapping[str, Any]) -> str:
    """The page: the numbers, and the images that changed. It works without plotly."""
    lines = [
        "<tr>" + "".join(f"<td>{page.escaped(cell)}</td>" for cell in cells) + "</tr>" for cells in _numbers(changes)
    ]
    numbers = page.table(["<th></th>", "<th>top1</th>", "<th>top5</th>"], lines)
    method = (
        "Interval: Agresti and Min 2005, for paired proportions. p: McNemar's exact test, two-sided. "
        "Both cover the choice of the images, not the seed."
    )
    one, two = (page.escaped(_short(name)) for name in changes.names)
    names = f"this checkpoint: {one}<br>against: {two}<br>{method}"
    sections: list[page.Section] = [("numbers", "Accuracy on the same images", names, numbers)]
    kinds: Sequence[tuple[str, str, Change]] = (
        ("lost", "Right in this checkpoint, wrong in the other", "right only in this one"),
        ("won", "Wrong in this checkpoint, right in the other", "right only in the other"),
    )
    for name, title, kind in kinds:
        rows = changes.rows(kind)
        number = f"images: {len(rows):,}" + (f"; the {SHOWN} whose losses differ most" if len(rows) > SHOWN else "")
        figures = "".join(_figure(changes, row, pixels) for row in rows[:SHOWN])
        sections.append((name, title, number, f'<div class="pictures wrapped">{figures}</div>'))
    lead = f"{about['images']:,} images of the {about['split']} split, protocol {about['protocol']}"
    return page.filled("Images that changed", lead, sections)


def _figure(changes: Changes, row: int, pixels: Pixels) -> str:
    first = changes.first
    lines = [first.classes[int(first.labels[row])]]
    for word, rows in (("this", changes.first), ("against", changes.second)):
        name, probability, _ = _predicted(rows, row)
        lines.append(f"{word}: {name} {probability:.1%}")
    title = f"<b>{page.escaped(lines[0])}</b>"
    caption = "<br>".join([title, *map(page.escaped, lines[1:]), page.escaped(printable(name_of(first, row)))])
    return f"<figure>{_thumbnail(picture(pixels(int(first.samples[row]))))}<figcaption>{caption}</figcaption></figure>"


def _thumbnail(image: Image.Image) -> str:
    """An `img` element that contains the image; small images keep their pixels visible."""
    form = "PNG" if max(image.size) <= SIDE // 2 else "JPEG"
    image = image.copy()
    image.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    image.save(file, form)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    style = "image-rendering: pixelated" if form == "PNG" else ""
    return f'<img alt="" width="{SIDE}" style="{style}" src="data:image/{form.lower()};base64,{data}">'
