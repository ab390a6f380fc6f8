"""Batch normalisation over the whole batch of all ranks.

Shapes: N images of this rank, C channels, H x W positions.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class BatchNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d` whose training statistics are those of the images of all ranks, however many each one has.

    torch's SyncBatchNorm does not work on a CPU. A single rank computes what `nn.BatchNorm2d` computes. Gradients are
    exact: those with respect to the statistics are summed over the ranks. The statistics of accumulated micro-batches
    are those of each micro-batch.

    Source: Ioffe, Szegedy, "Batch Normalization", 2015, arXiv:1502.03167.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features)
        self.over_ranks = True
        """False: each rank has channels of its own, and the same images."""

    def train(self, mode: bool = True) -> "BatchNorm":
        """Training mode, except for a frozen layer: it keeps its statistics."""
        frozen = not (self.weight.requires_grad or self.bias.requires_grad)
        return super().train(mode and not frozen)

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]; N may be 0."""
        ranks = dist.get_world_size() if self.training and self.over_ranks and dist.is_initialized() else 1
        # PyTorch's function refuses to train with less than two values of a channel.
        if not self.training or (ranks == 1 and input.numel() > self.num_features):
            return super().forward(input)
        with torch.autocast(input.device.type, enabled=False):
            return self._over_ranks(input.to(self.weight.dtype), ranks).to(input.dtype)

    def _over_ranks(self, input: Tensor, ranks: int) -> Tensor:
        def whole(part: Tensor) -> Tensor:
            return _SumOverRanks.apply(part) if ranks > 1 else part

        count = input.new_full((1,), input.numel() / self.num_features)
        sums = whole(torch.cat([input.sum((0, 2, 3)), count]))
        total = sums[-1].detach()
        mean = sums[:-1] / total.clamp(min=1)
        centred = input - mean.view(-1, 1, 1)
        variance = whole(centred.square().sum((0, 2, 3))) / total.clamp(min=1)
        self._track(mean.detach(), variance.detach(), total)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return torch.addcmul(self.bias.view(-1, 1, 1), centred, scale.view(-1, 1, 1))

    def _track(self, mean: Tensor, variance: Tensor, total: Tensor) -> None:
        """Update the statistics for evaluation, with the variance of n - 1, as PyTorch does; not by an empty batch."""
        assert self.momentum is not None
        momentum = self.momentum * (total > 0).to(total.dtype)
        self.get_buffer("num_batches_tracked").add_(total > 0)
        self.get_buffer("running_mean").lerp_(mean, momentum)
        self.get_buffer("running_var").lerp_(variance * total / (total - 1).clamp(min=1), momentum)


class _SumOverRanks(torch.autograd.Function):
    """The sum over the ranks; so is its gradient, since each rank's loss depends on each rank's part."""

    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        whole = part.clone()
        dist.all_reduce(whole)
        return whole

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        whole = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(whole)
        return whole
