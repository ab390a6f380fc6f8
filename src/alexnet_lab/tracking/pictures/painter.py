"""Draws what `alexnet_lab.callbacks.pictures` has gathered; nothing but Pillow is needed.

Shapes: N images, C channels, S their side, D features, K classes, all on the host.
"""

from collections.abc import Sequence

from PIL import Image
from torch import Tensor

from alexnet_lab.tracking.pictures.confusion import confusion_picture
from alexnet_lab.tracking.pictures.filters import filters_picture
from alexnet_lab.tracking.pictures.neighbours import neighbours_picture
from alexnet_lab.tracking.pictures.sheet import sheet
from alexnet_lab.tracking.pictures.tiles import batch_picture, picture_of

MOST_LIKELY = 5


class PaperPictures:
    """The pictures of the paper and two that help to find mistakes, one method for each."""

    def filters(self, weight: Tensor, towers: int) -> Image.Image:
        """float [O, C, k, k], see `filters_picture`."""
        return filters_picture(weight, towers)

    def batch(self, images: Tensor, labels: Tensor, classes: Sequence[str]) -> Image.Image:
        """uint8 [N, C, S, S], int64 [N], see `batch_picture`."""
        return batch_picture(images, [classes[label] for label in labels.tolist()])

    def predictions(self, images: Tensor, probabilities: Tensor, labels: Tensor, classes: Sequence[str]) -> Image.Image:
        """uint8 [N, C, S, S], float [N, K], int64 [N], see `sheet`."""
        best = probabilities.topk(min(MOST_LIKELY, len(classes)))
        rows = [
            [(classes[index], value) for index, value in zip(indices, values, strict=True)]
            for indices, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]
        return sheet([picture_of(image) for image in images], rows, [classes[label] for label in labels.tolist()])

    def neighbours(self, images: Tensor, features: Tensor, labels: Tensor, classes: Sequence[str]) -> Image.Image:
        """uint8 [N, C, S, S], float [N, D], int64 [N], see `neighbours_picture`."""
        return neighbours_picture(images, features, labels, classes)

    def confusion(self, counts: Tensor, classes: Sequence[str]) -> Image.Image:
        """int64 [K, K], see `confusion_picture`."""
        return confusion_picture(counts, classes)
