"""The batch for the network, and the facts about a dataset.

Shapes: N samples of this rank's micro-batch, V views of each, C channels, H W stored size, S the network's input size,
K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import NamedTuple

from torch import Tensor

from alexnet_lab.data.store.modes import Transparency
from alexnet_lab.errors import UserError, names_of, printable


class Draws(NamedTuple):
    """The random draws of each sample, for the input pipeline; None if there is nothing to draw."""

    corner: Tensor | None = None
    """int64 [N, 2], top and left of the window that was cut out of the stored image."""
    box: Tensor | None = None
    """int64 [N, 4], top, left, height and width of the part that becomes the whole input."""
    flip: Tensor | None = None
    """bool [N], whether to mirror it."""
    rotation: Tensor | None = None
    """float32 [N], degrees, counter-clockwise."""
    scaling: Tensor | None = None
    """float32 [N], 1.1 enlarges by 10 %."""
    jitter: Tensor | None = None
    """float32 [N, 3], factors of brightness, contrast and saturation."""
    colour: Tensor | None = None
    """float32 [N, 3], amounts of the three principal components."""


class Batch(NamedTuple):
    """One rank's part of one micro-batch; N is 0 if the last global batch has fewer samples than parts."""

    images: Tensor
    """uint8 [N, C, H, W] from the loader; float [N * V, C, S, S] after the pipeline, a sample's views together."""
    labels: Tensor
    """int64 [N], in [0, num_classes)."""
    samples: Tensor
    """int64 [N], each sample's index in its split."""
    global_size: int
    """Samples of the whole global batch, over all ranks and accumulated micro-batches: the loss's denominator."""
    draws: Draws = Draws()


def mean_over_views(logits: Tensor, num_samples: int) -> Tensor:
    """Logits [N * V, K] to [N, K]: the logarithm of the mean of a sample's V softmax outputs.

    They are logits again, whose softmax is that mean (paper, section 4.1). One view is passed on untouched.
    """
    if len(logits) == num_samples:
        return logits
    # Summed in the log domain: a probability that underflows in every view keeps its logarithm.
    views = logits.float().log_softmax(1).unflatten(0, (num_samples, -1))
    mean: Tensor = views.logsumexp(1) - views.new_tensor(views.shape[1]).log()
    return mean


def different_class(before: Sequence[str], now: Sequence[str]) -> str | None:
    """A description of the first label whose class has changed; None if there is none."""
    for label, (one, two) in enumerate(zip_longest(before, now, fillvalue="no class")):
        if one != two:
            return printable(f"class {label} was {one}, it is {two}")
    return None


def labels_of(found: Sequence[str], known: Sequence[str], place: str) -> list[int]:
    """The position in `known`, the classes of a network, of each class that is `found` in a dataset in `place`.

    A network whose classes are only numbered, `class 0` and so on, has the dataset's classes in their order.

    Raises:
        UserError: a class is not known, or known twice.
    """
    is_numbered = len(found) == len(known) and all(name == f"class {label}" for label, name in enumerate(known))
    if is_numbered or tuple(found) == tuple(known):
        return [*range(len(known))]
    label = {name: position for position, name in enumerate(known)}
    if unknown := [name for name in found if name not in label or known.count(name) > 1]:
        raise UserError(
            f"{place} has images of {names_of(unknown)}; the network has {len(known):,} classes: {names_of(known)}"
        )
    return [label[name] for name in found]


@dataclass(frozen=True)
class DataSpec:
    """The facts about a dataset that the rest of the program needs.

    Raises:
        UserError: `mean` or `std` has the wrong number of values, or a deviation is not positive.
    """

    name: str
    classes: tuple[str, ...]
    channels: int
    mean: tuple[float, ...]
    """Per channel, or one value for all channels, for pixels in [0, 1]."""
    std: tuple[float, ...]
    transparency: Transparency | None = "white"
    """The background of transparent pixels in image files, see `to_square`."""

    def __post_init__(self) -> None:
        for key, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, self.channels):
                raise UserError(
                    f"data.{key} needs one value, or one for each of {self.channels} channels, got {len(values)}"
                )
        if min(self.std) <= 0:
            raise UserError(f"data.std must be positive, got {list(self.std)}")

    @property
    def num_classes(self) -> int:
        return len(self.classes)
