"""Loss, top-1 and top-5 of a split, counted exactly in one pass.

N samples, K classes.
"""

from collections.abc import Callable, Sequence

import torch
import torchmetrics
from torch import Tensor
from torch.nn.functional import cross_entropy, nll_loss


def place_of_sums(device: torch.device) -> torch.device:
    """The device for float64 sums: `device` itself, or the CPU for Apple's GPU, which has no float64."""
    return torch.device("cpu") if device.type == "mps" else device


def at_least_float32(logits: Tensor) -> Tensor:
    """`logits`, converted to float32 if they are float16 or bfloat16."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def sum_of_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """The cross-entropy of logits [N, K] and labels int64 [N], summed over the samples; a float32 or float64 scalar.

    In float16 the sum over a large batch would be infinite, and in bfloat16 it would have two digits.
    """
    return cross_entropy(at_least_float32(logits), labels, reduction="sum")


class ClassificationMetrics(torchmetrics.Metric):
    """Mean loss and the fraction of samples whose label is among the 1 and the 5 most probable classes.

    Keeps sums and integer counts, so the metrics do not depend on ranks and batches; `count` is the number of samples.
    With fewer than five classes, top-5 is over all of them.

    The sums stay float64 and int64 if the network is converted, as with trainer.precision=bf16-true, and move to its
    device; see `place_of_sums`.
    """

    full_state_update = False

    loss_sum: Tensor
    hits: Tensor
    """int64 [5]: the number of samples whose label has the highest logit, the second highest, ..."""
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("loss_sum", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("hits", torch.zeros(5, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self._read: list[float] | None = None

    def update(self, loss_sum: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add N samples: `loss_sum` scalar, summed over them; `logits` [N, K]; `labels` int64 [N]."""
        ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices
        hits = (ranked == labels[:, None]).sum(0)
        place = self.loss_sum.device
        # In place: setting an attribute of a module takes longer than the addition.
        self.loss_sum.add_(loss_sum.to(place))
        self.hits[: len(hits)].add_(hits.to(place))
        self.count.add_(len(labels))

    def sums(self) -> Tensor:
        """This rank's loss sum, top-1 hits, top-5 hits and count, float64 [4] on the CPU: waits for the device."""
        exact = [self.loss_sum, self.hits[0].double(), self.hits.sum().double(), self.count.double()]
        sums = torch.stack(exact).cpu()
        self._read = sums.tolist()
        return sums

    def latest(self) -> list[float] | None:
        """`sums` without waiting for a device: on a GPU those that `sums` returned last, None before."""
        return self.sums().tolist() if self.loss_sum.device.type == "cpu" else self._read

    def restore(self, loss_sum: float, top1: float, top5: float, count: float) -> None:
        """Set the sums to what `sums` returned, as when a run continues in the middle of an epoch."""
        self.reset()
        self.loss_sum.fill_(loss_sum)
        self.hits[0], self.hits[1] = int(top1), int(top5) - int(top1)
        self.count.fill_(int(count))

    def reset(self) -> None:
        """Set all sums to zero."""
        super().reset()
        self._read = None

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> torch.nn.Module:
        """Called by `Module.to`, `half` and similar: change the device, not the dtype."""
        self._device = fn(torch.empty(0, device=self._device)).device
        place = place_of_sums(self._device)
        for name, default in self._defaults.items():
            self._defaults[name] = default.to(place)  # type: ignore[union-attr]
            setattr(self, name, getattr(self, name).to(place))
        return self

    def compute(self) -> dict[str, float]:
        """`loss`, `top1`, `top5` (fractions of 1) over all ranks, and `count`; empty if there were no samples."""
        loss_sum, top1, top5, count = self.sums().tolist()
        if count == 0:
            return {}
        return {"loss": loss_sum / count, "top1": top1 / count, "top5": top5 / count, "count": int(count)}


def mean_prediction(logits: Sequence[Tensor]) -> Tensor:
    """The logarithm of the mean of several networks' softmax outputs, from the logits of each; all [N, K].

    Source: paper, section 6: "averaging the predictions" of 5 and 7 CNNs.
    """
    total = torch.full_like(logits[0], -torch.inf)
    for network in logits:
        total = torch.logaddexp(total, network.log_softmax(1))
    return total - total.new_tensor(len(logits)).log()


def figures_of_mean(mean: Tensor, labels: Tensor) -> dict[str, float]:
    """`loss`, `top1`, `top5` of a `mean_prediction`."""
    metrics = ClassificationMetrics()
    metrics.distributed_available_fn = lambda: False  # the images of all ranks are here already
    metrics.update(nll_loss(mean, labels, reduction="sum"), mean, labels)
    return {name: value for name, value in metrics.compute().items() if name != "count"}


def by_image(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """The prediction for each of N images, on the host: `best` int64 [N, T], `probabilities` and `losses` float64.

    The T = min(5, K) most probable classes are those that `ClassificationMetrics` counts.
    """
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices.cpu()
    scores = logits.cpu().double().log_softmax(1)
    losses = nll_loss(scores, labels.cpu(), reduction="none")
    return {"best": best, "probabilities": scores.gather(1, best).exp(), "losses": losses}
