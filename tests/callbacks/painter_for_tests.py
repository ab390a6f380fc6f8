"""A painter whose pictures tell what it was given; found by the runs of tests through PYTHONPATH."""

from typing import Any

from PIL import Image


class Telling:
    """The counts of the confusion matrix are the width of its picture."""

    def confusion(self, counts: Any, classes: Any) -> Image.Image:
        return Image.new("L", (int(counts.sum()), len(classes)))

    def filters(self, weight: Any, towers: int) -> Image.Image:
        return Image.new("L", (len(weight), towers))

    def batch(self, images: Any, labels: Any, classes: Any) -> Image.Image:
        return Image.new("L", (len(images), len(labels)))

    def predictions(self, images: Any, probabilities: Any, labels: Any, classes: Any) -> Image.Image:
        raise RuntimeError("a defect of the painter")

    def neighbours(self, images: Any, features: Any, labels: Any, classes: Any) -> Image.Image:
        return Image.new("L", (len(features), features.shape[1]))
