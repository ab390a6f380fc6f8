"""Validation images with their most probable classes, as in the paper's figure 4 on the left."""

from collections.abc import Sequence

from PIL import Image
from torch import Tensor

from alexnet_lab.pictures.sheet import sheet
from alexnet_lab.pictures.tiles import picture_of

MOST_LIKELY = 5


def predictions_picture(images: Tensor, probabilities: Tensor, labels: Tensor, classes: Sequence[str]) -> Image.Image:
    """uint8 [N, C, S, S], float [N, K], int64 [N], all on the host; see `sheet`."""
    best = probabilities.topk(min(MOST_LIKELY, len(classes)))
    rows = [
        [(classes[index], value) for index, value in zip(indices, values, strict=True)]
        for indices, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]
    return sheet([picture_of(image) for image in images], rows, [classes[label] for label in labels.tolist()])
