"""The training objective: cross-entropy with label smoothing, class weights and mixed labels, as torch defines them.

N samples of this rank's micro-batch, K classes.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from alexnet_lab.data.spec import Batch
from alexnet_lab.metrics import at_least_float32


class TrainingLoss:
    """Logits [N, K] and a batch to a scalar: the micro-batch's part of the objective, times the batch's `global_size`.

    Summed over the parts of a global batch, and divided by its size, it is torch's `cross_entropy` of the whole global
    batch with these `label_smoothing` and class weights. Torch divides by the sum of the weights of the batch's labels,
    and with mixed labels, which are probabilities, by the number of samples.

    `class_weights` is called at the first batch; it returns K numbers, or None for equal weights.
    """

    def __init__(
        self, label_smoothing: float = 0.0, class_weights: Callable[[], Sequence[float] | None] = lambda: None
    ) -> None:
        self.label_smoothing = label_smoothing
        self._class_weights = class_weights
        self._weights: Tensor | None = None
        self._has_weights: bool | None = None  # unknown before the first batch

    def __call__(self, logits: Tensor, batch: Batch) -> Tensor:
        logits = at_least_float32(logits)
        weights = self._on_device(logits)
        if batch.mixture is None:
            total = cross_entropy(logits, batch.labels, weights, reduction="sum", label_smoothing=self.label_smoothing)
        else:
            # The loss is linear in the label's probabilities.
            own, partners = (
                cross_entropy(logits, labels, weights, reduction="none", label_smoothing=self.label_smoothing)
                for labels in (batch.labels, batch.mixture.partners)
            )
            share = batch.mixture.share(logits.dtype)
            total = (share * own + (1 - share) * partners).sum()
        if batch.global_weight is None:
            return total
        return total * (batch.global_size / batch.global_weight if batch.global_weight else 0.0)

    def __deepcopy__(self, memo: dict[int, Any]) -> "TrainingLoss":
        """Copies of the classifier, as those that average weights, share it: `class_weights` may refer to the data."""
        return self

    def _on_device(self, logits: Tensor) -> Tensor | None:
        """The class weights, [K], copied to the device once."""
        if self._has_weights is None:
            weights = self._class_weights()
            self._has_weights = weights is not None
            self._weights = None if weights is None else torch.tensor(weights, dtype=logits.dtype, device=logits.device)
        return self._weights


CROSS_ENTROPY = TrainingLoss()
