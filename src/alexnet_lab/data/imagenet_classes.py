"""The 1000 classes of ILSVRC2012 in the published order: sorted by wnid, as torchvision's pre-trained networks count.

`imagenet_classes.csv` holds facts: the wnids with their numbers in the challenge's development kit (in which the
validation labels are written), and the names that torchvision shows.
"""

import csv
from functools import cache
from pathlib import Path
from typing import NamedTuple

TABLE = Path(__file__).with_name("imagenet_classes.csv")


class ImagenetClass(NamedTuple):
    wnid: str
    ilsvrc2012_id: int
    """1 to 1000, `ILSVRC2012_ID` in the development kit; the label is the position in the order instead."""
    name: str


@cache
def imagenet_classes() -> tuple[ImagenetClass, ...]:
    """All 1000 classes; output i of a network trained on ImageNet is class i."""
    with TABLE.open(newline="") as table:
        rows = csv.DictReader(table)
        return tuple(ImagenetClass(row["wnid"], int(row["ilsvrc2012_id"]), row["name"]) for row in rows)


@cache
def names_by_wnid() -> dict[str, str]:
    return {known.wnid: known.name for known in imagenet_classes()}


@cache
def wnids_by_ilsvrc2012_id() -> dict[int, str]:
    return {known.ilsvrc2012_id: known.wnid for known in imagenet_classes()}
