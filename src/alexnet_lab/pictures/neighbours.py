"""Images and those whose features are the nearest, as in the paper's figure 4 on the right.

Shapes: N images, C channels, S their side, D features.
"""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from alexnet_lab.pictures.lettering import INK, PALE
from alexnet_lab.pictures.tiles import rows_of_tiles

WRONG = "#b42318"
"""Of the name of a neighbour of another class."""


def nearest(features: Tensor, queries: Tensor, number: int) -> Tensor:
    """int64 [Q, number]: of each query (int64 [Q], an index) the others by Euclidean distance, the nearest first.

    features: float [N, D], N > number; sums of squares over all features, none of them weighted (paper, section 6.1).
    """
    features = features.float()
    distances = torch.cdist(features[queries], features)
    distances[torch.arange(len(queries)), queries] = torch.inf
    return distances.topk(number, largest=False).indices


def chosen_queries(labels: Tensor, number: int) -> Tensor:
    """int64 [at most number]: the first image of each class, as long as there are classes, in the order of images."""
    first = {int(label): index for index, label in reversed(list(enumerate(labels.tolist())))}
    return torch.tensor(sorted(first.values())[:number], dtype=torch.int64)


def neighbours_picture(
    images: Tensor, features: Tensor, labels: Tensor, classes: Sequence[str], queries: int = 5, neighbours: int = 6
) -> Image.Image:
    """uint8 [N, C, S, S], float [N, D] and int64 [N]: a row per query, which stands at its left."""
    asked = chosen_queries(labels, queries)
    found = nearest(features, asked, min(neighbours, len(images) - 1))
    of = labels.tolist()
    rows = []
    for query, others in zip(asked.tolist(), found.tolist(), strict=True):
        row = [(images[query], classes[of[query]], INK)]
        for other in others:
            row.append((images[other], classes[of[other]], PALE if of[other] == of[query] else WRONG))
        rows.append(row)
    return rows_of_tiles(rows, apart=28)
