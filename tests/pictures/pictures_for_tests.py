"""Pictures whose sizes show their input; runs started by tests find this module through PYTHONPATH."""

from typing import Any

from PIL import Image

from alexnet_lab.pictures import callback


def sized(width: int, height: int) -> Image.Image:
    return Image.new("L", (width, height))


def defective(*_: Any) -> Image.Image:
    raise RuntimeError("a defect of the drawing")


DRAWINGS = {
    "confusion_picture": lambda counts, classes: sized(int(counts.sum()), len(classes)),
    "curves_picture": lambda rows: sized(len(rows), 1),
    "filters_picture": lambda weight, towers: sized(len(weight), towers),
    "batch_picture": lambda images, names: sized(len(images), len(names)),
    "predictions_picture": defective,
    "neighbours_picture": lambda images, features, labels, classes: sized(len(features), features.shape[1]),
}


class Sized(callback.Pictures):
    """The callback with these drawing functions."""

    def __init__(self, folder: str, images: int = 400) -> None:
        super().__init__(folder, images)
        vars(callback).update(DRAWINGS)
