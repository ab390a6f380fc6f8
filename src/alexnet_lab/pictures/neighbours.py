"""Images and their nearest neighbours in feature space, as in the paper's figure 4 on the right.

Shapes: N images, C channels, S image size, D features.
"""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from alexnet_lab.pictures.lettering import INK, PALE
from alexnet_lab.pictures.tiles import rows_of_tiles

WRONG = "#b42318"
"""Text colour for a neighbour of a different class."""


def nearest(features: Tensor, queries: Tensor, number: int) -> Tensor:
    """int64 [Q, number]: the nearest other images of each query by Euclidean distance, nearest first.

    features: float [N, D], N > number, unweighted (paper, section 6.1). queries: int64 [Q], indices of images.
    """
    features = features.float()
    distances = torch.cdist(features[queries], features)
    distances[torch.arange(len(queries)), queries] = torch.inf
    return distances.topk(number, largest=False).indices


def chosen_queries(labels: Tensor, number: int) -> Tensor:
    """int64 [at most number]: the first image of each class, in the order of the images."""
    first = {int(label): index for index, label in reversed(list(enumerate(labels.tolist())))}
    return torch.tensor(sorted(first.values())[:number], dtype=torch.int64)


def neighbours_picture(
    images: Tensor, features: Tensor, labels: Tensor, classes: Sequence[str], queries: int = 5, neighbours: int = 6
) -> Image.Image:
    """uint8 [N, C, S, S], float [N, D] and int64 [N]: a row per query, with the query on the left."""
    chosen = chosen_queries(labels, queries)
    found = nearest(features, chosen, min(neighbours, len(images) - 1))
    of = labels.tolist()
    rows = []
    for query, others in zip(chosen.tolist(), found.tolist(), strict=True):
        row = [(images[query], classes[of[query]], INK)]
        for other in others:
            row.append((images[other], classes[of[other]], PALE if of[other] == of[query] else WRONG))
        rows.append(row)
    return rows_of_tiles(rows, apart=28)
