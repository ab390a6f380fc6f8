"""Loss, top-1 and top-5 of a split, counted exactly in one pass.

N samples, K classes.
"""

from collections.abc import Sequence

import torch
import torchmetrics
from torch import Tensor
from torch.nn.functional import nll_loss


class ClassificationMetrics(torchmetrics.Metric):
    """Mean loss and the fraction of samples whose label is among the 1 and the 5 most probable classes.

    Holds sums and integer counts, so that any split over ranks and batches gives the same figures and `count` tells
    how many samples there were. With fewer than five classes, top-5 is over all of them.
    """

    full_state_update = False

    loss_sum: Tensor
    top1: Tensor
    top5: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("loss_sum", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        for name in ("top1", "top5", "count"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, loss_sum: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add N samples: `loss_sum` scalar, summed over them; `logits` [N, K]; `labels` int64 [N]."""
        ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices
        hits = ranked == labels[:, None]
        # In place: setting an attribute of a module takes longer than the addition.
        self.loss_sum.add_(loss_sum)
        self.top1.add_(hits[:, 0].sum())
        self.top5.add_(hits.sum())
        self.count.add_(len(labels))

    def compute(self) -> dict[str, float]:
        """`loss`, `top1`, `top5` (fractions of 1) over all ranks, and `count`; empty when there were no samples."""
        count = int(self.count)
        if count == 0:
            return {}
        figures = {"loss": self.loss_sum, "top1": self.top1, "top5": self.top5}
        return {name: float(value) / count for name, value in figures.items()} | {"count": count}


def figures_of_mean(logits: Sequence[Tensor], labels: Tensor) -> dict[str, float]:
    """`loss`, `top1`, `top5` of the mean of several networks' softmax outputs, from the logits of each, [N, K].

    Source: paper, section 6: "averaging the predictions" of 5 and 7 CNNs.
    """
    total = torch.full_like(logits[0], -torch.inf)
    for network in logits:
        total = torch.logaddexp(total, network.log_softmax(1))
    mean = total - total.new_tensor(len(logits)).log()
    metrics = ClassificationMetrics()
    metrics.update(nll_loss(mean, labels, reduction="sum"), mean, labels)
    return {name: value for name, value in metrics.compute().items() if name != "count"}
