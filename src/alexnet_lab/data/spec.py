"""What travels from the data to the network, and what a dataset says about itself.

Shapes: N samples of this rank's micro-batch, C channels, H W stored size, S the network's input size.
"""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """One rank's part of one micro-batch; N is 0 where the last global batch is smaller than the number of parts."""

    images: Tensor
    """uint8 [N, C, H, W] from the loader, float [N, C, S, S] after the input pipeline."""
    labels: Tensor
    """int64 [N], in [0, num_classes)."""
    samples: Tensor
    """int64 [N], each sample's index in its split."""
    global_size: int
    """Samples of the whole global batch, over all ranks and accumulated micro-batches: the loss's denominator."""


@dataclass(frozen=True)
class DataSpec:
    """The facts about a dataset that the rest of the program needs."""

    name: str
    classes: tuple[str, ...]
    channels: int
    mean: tuple[float, ...]
    """Per channel or one for all, of pixels in [0, 1]."""
    std: tuple[float, ...]

    @property
    def num_classes(self) -> int:
        return len(self.classes)
