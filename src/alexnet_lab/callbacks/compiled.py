"""The setting `compile`: torch.compile, or the network's kernels recorded once and replayed in each step."""

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor, nn

from alexnet_lab.errors import UserError

Forward = Callable[[Tensor], Any]


def compiled(net: nn.Module, how: bool | str) -> list[pl.Callback]:
    """Compiles `net` in place as the setting says; returns the callbacks that record it."""
    if how == "cuda-graph":
        return [CudaGraph()]
    if how:
        net.compile(mode=None if how is True else how)
    return []


class CudaGraph(pl.Callback):
    """Records `pl_module.net` at the start of training, when no other thread uses the GPU.

    A step of AlexNet launches 150 kernels, which takes the host longer than the GPU needs for a batch of 128; a
    recorded step is two launches of the same kernels. Evaluation and batches of another size, as the last one of an
    epoch, are not replayed.

    The gradients are in memory that each replay overwrites, so they cannot be accumulated (pytorch/pytorch#181723).
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Raises UserError if the training is not on a single GPU, is distributed, or accumulates gradients."""
        strategy = trainer.strategy
        if trainer.accumulate_grad_batches != 1:
            raise UserError("compile=cuda-graph cannot accumulate gradients; choose trainer.accumulate_grad_batches=1")
        if not isinstance(strategy, SingleDeviceStrategy) or strategy.root_device.type != "cuda":
            raise UserError("compile=cuda-graph needs trainer=gpu with a single GPU; choose compile=false or true")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        net: Any = pl_module.net
        sample = sample_batch(trainer)
        eager = net.forward
        # Recording runs the network a few times, which must not count in the statistics of batch normalisation.
        before = [(buffer, buffer.clone()) for buffer in net.buffers()]
        # Without autocast's cache: its copies must not be shared between recordings.
        with trainer.precision_plugin.forward_context():
            dtype, enabled = torch.get_autocast_dtype("cuda"), torch.is_autocast_enabled("cuda")
            with torch.autocast("cuda", dtype, enabled=enabled, cache_enabled=False):
                torch.cuda.make_graphed_callables(net, (sample,))
        for buffer, value in before:
            buffer.copy_(value)
        net.forward = choosing(net.forward, eager, sample.shape)


def sample_batch(trainer: pl.Trainer) -> Tensor:
    """Zeros like the images of the first batch of an epoch, [N, C, S, S], on the device of training."""
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    images = torch.zeros(data.batch_size, data.spec.channels, data.image_size, data.image_size)
    images = images.to(trainer.strategy.root_device, memory_format=data.pipeline.memory_format)
    converted: Tensor = trainer.precision_plugin.convert_input(images)
    return converted


def choosing(replayed: Forward, eager: Forward, shape: torch.Size) -> Forward:
    """A `forward` that replays batches of `shape` and computes all others."""

    def forward(images: Tensor) -> Any:
        return (replayed if images.shape == shape else eager)(images)

    return forward
