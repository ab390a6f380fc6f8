"""The batch for the network, and the facts about a dataset.

Shapes: N samples of this rank's micro-batch, V views of each, C channels, H W stored size, S the network's input size,
K classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import NamedTuple

import torch
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
    """float32 [N, C], amounts of the principal components."""
    shift: Tensor | None = None
    """int64 [N, 2], pixels by which the window is moved down and to the right; outside of the image is black."""


MIXTURE_UNITS = 1 << 24
"""Shares are whole numbers of 2^-24: exact in float32, and not rounded to the precision of the Trainer."""


class Mixture(NamedTuple):
    """How samples 2i and 2i + 1 of a batch are mixed with each other; a last one without a partner stays as it is.

    Shares are int32 [N], in `MIXTURE_UNITS`; both samples of a pair have the same.
    """

    partners: Tensor
    """int64 [N], the partners' labels."""
    shares: Tensor
    """The share of the sample's own label; the partner's label has the rest."""
    blend: Tensor | None = None
    """The share of its own pixels in every pixel (mixup)."""
    boxes: Tensor | None = None
    """int64 [N, 4], top, left, bottom, right of the part that comes from the partner (cutmix); may be empty."""

    def share(self, dtype: torch.dtype) -> Tensor:
        """[N], `shares` as fractions of 1."""
        return self.shares.to(dtype) / MIXTURE_UNITS

    def largest(self, labels: Tensor) -> Tensor:
        """int64 [N]: of each sample's own label and its partner's, the one with the larger share."""
        return torch.where(self.shares * 2 >= MIXTURE_UNITS, labels, self.partners)


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
    mixture: Mixture | None = None
    """None: nothing is mixed."""
    global_weight: float | None = None
    """The sum of the class weights of the whole global batch, if it is the loss's denominator instead of its size."""

    def each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """The batch with a function applied to its tensors, those of draws and mixture included."""
        images, labels, samples = map(change, self[:3])
        draws = Draws(*(drawn if drawn is None else change(drawn) for drawn in self.draws))
        mixture = self.mixture
        if mixture is not None:
            partners, shares, *others = mixture
            mixture = Mixture(
                change(partners), change(shares), *(one if one is None else change(one) for one in others)
            )
        return self._replace(images=images, labels=labels, samples=samples, draws=draws, mixture=mixture)


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
            f"{place} has images of {names_of(unknown)}; the network has {len(known):,} classes: {names_of(known)}\n"
            "name the folders by the network's classes, those of ImageNet also by their WordNet ids, or train the "
            "network on your classes: experiment=finetune"
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
