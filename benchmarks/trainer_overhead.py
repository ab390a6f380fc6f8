"""Overhead of the platform over a bare PyTorch loop with the same network, data, optimizer, threads and memory format.

Ours: lightning's Trainer with everything a run has: exact metrics, the progress bar on a terminal, metrics.csv, the
watch over the loss, checkpoints (none falls due), dropout seeded per step. Peer: forward, mean cross-entropy, backward,
step. Both read batches from the same `train_dataloader()` and prepare them on the device. Ours and the peer alternate;
each round's rate is over the same number of steps after a warm-up, and the median of the rounds' ratios counts.

On a GPU (--device cuda), both compute in bfloat16 by autocast, with synthetic images of the same size, which need no
dataset; the times are those of CUDA events.
"""

import argparse
import contextlib
import os
import pty
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from _device import Mark, add_device, check_device, trainer_on
from _report import report
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD

from alexnet_lab.callbacks.checkpoints import Checkpoints
from alexnet_lab.callbacks.finite_loss import FiniteLoss
from alexnet_lab.callbacks.progress import Progress
from alexnet_lab.callbacks.stopwatch import Stopwatch
from alexnet_lab.classifier import ImageClassifier
from alexnet_lab.data.fashion_mnist import fashion_mnist
from alexnet_lab.data.module import ImageDataModule
from alexnet_lab.data.synthetic import synthetic
from alexnet_lab.models.alexnet_d2l import alexnet_d2l
from alexnet_lab.models.lenet import lenet
from alexnet_lab.optim.schedules import constant
from alexnet_lab.runs.metrics_csv import MetricsCsv

WARM_UP = 2
"""Steps before the measurement."""


class Clock(pl.Callback):
    """The moments of the end of the warm-up and of the last step."""

    def __init__(self, last: int, device: str) -> None:
        self._last, self._device = last, device

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == WARM_UP:
            self.start = Mark(self._device)
        elif trainer.global_step == self._last:
            self.end = Mark(self._device)


def main() -> None:
    parser = argparse.ArgumentParser(description="Training speed of the platform divided by that of a bare loop.")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and steps, within a minute")
    add_device(parser)
    arguments = parser.parse_args()
    device = check_device(arguments.device)
    torch.backends.cudnn.benchmark = True  # as in training; without effect on a CPU
    # network: batch size, timed steps, rounds
    plan = {"alexnet": (64, 6, 5), "lenet": (256, 200, 5)}
    if device == "cuda":
        plan = {"alexnet": (128, 150, 3), "lenet": (256, 200, 3)}
    elif arguments.quick:
        plan = {"alexnet": (32, 3, 3), "lenet": (256, 60, 3)}

    rows: list[tuple[str, ...]] = []
    ratios: dict[str, float] = {}
    figures: dict[str, float] = {}
    for name, (batch_size, steps, rounds) in plan.items():
        pairs = [(ours(name, batch_size, steps, device), bare(name, batch_size, steps, device)) for _ in range(rounds)]
        ratio = statistics.median(mine / theirs for mine, theirs in pairs)
        mine, theirs = (statistics.median(rates) for rates in zip(*pairs, strict=True))
        rows.append((name, f"{mine:,.1f}", f"{theirs:,.1f}", f"{ratio:.3f}"))
        ratios[f"{name}_vs_bare"] = ratio
        figures |= {f"{name}_images_per_second": mine, f"{name}_bare_images_per_second": theirs}
    header = ("network", "ours, images/s", "bare, images/s", "median ratio")
    report("trainer_overhead", header, rows, ratios, figures | {"torch_threads": torch.get_num_threads()})


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    net = {"alexnet": alexnet_d2l, "lenet": lenet}[name](in_channels=1, num_classes=10)
    return net.to(memory_format=torch.channels_last)


def data_module(name: str, batch_size: int, device: str) -> ImageDataModule:
    shared: dict[str, Any] = {
        "num_classes": 10,
        "channels": 1,
        "mean": [0.0],
        "std": [1.0],
        "image_size": {"alexnet": 224, "lenet": 28}[name],
        "batch_size": batch_size,
        "eval_batch_size": batch_size,
        "val_size": 5000,
        "split_seed": 0,
        "seed": 0,
    }
    if device == "cuda":
        return synthetic(name="synthetic", stored_size=28, train_size=55_000, test_size=1, **shared)
    return fashion_mnist(name="fashion_mnist", dir="data/fashion_mnist", validate_on="split", **shared)


def ours(name: str, batch_size: int, steps: int, device: str) -> float:
    """Images per second through the Trainer."""
    clock = Clock(WARM_UP + steps, device)
    classifier = ImageClassifier(network(name), lambda named: SGD(named, lr=0.01), constant, seed=0)
    with tempfile.TemporaryDirectory() as folder, terminal():
        path = Path(folder)
        kept = Checkpoints(path / "last.ckpt", path / "best.ckpt", every_minutes=10, keep=True)
        trainer = pl.Trainer(
            accelerator="gpu" if device == "cuda" else "cpu",
            devices=1 if device == "cuda" else "auto",
            precision="bf16-mixed" if device == "cuda" else "32-true",
            max_steps=WARM_UP + steps,
            limit_val_batches=0,
            logger=MetricsCsv(path / "metrics.csv"),
            callbacks=[FiniteLoss(), Stopwatch(time.time()), Progress(), clock, kept],
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        trainer.fit(classifier, data_module(name, batch_size, device))
    return steps * batch_size / clock.end.seconds_since(clock.start)


def bare(name: str, batch_size: int, steps: int, device: str) -> float:
    """Images per second of a minimal training loop."""
    net = network(name).to(device)
    data = data_module(name, batch_size, device)
    if device == "cuda":
        data.trainer = trainer_on(device)
    data.prepare_data()
    data.setup("fit")
    optimizer = SGD(net.parameters(), lr=0.01)
    start = Mark(device)
    for step, host in enumerate(data.train_dataloader()):
        if step == WARM_UP:
            start = Mark(device)
        if step == WARM_UP + steps:
            break
        batch = data.on_after_batch_transfer(host, 0)
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.bfloat16) if device == "cuda" else contextlib.nullcontext():
            loss = cross_entropy(net(batch.images), batch.labels)
        loss.backward()
        optimizer.step()
    return steps * batch_size / Mark(device).seconds_since(start)


@contextlib.contextmanager
def terminal() -> Iterator[None]:
    """Standard error on a pseudo-terminal whose output is discarded, so that the progress bar is drawn."""
    reader, writer = pty.openpty()
    threading.Thread(target=drain, args=(reader,), daemon=True).start()
    with os.fdopen(writer, "w") as stream, contextlib.redirect_stderr(stream):
        yield
    sys.stderr.flush()


def drain(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        while os.read(descriptor, 4096):
            pass


if __name__ == "__main__":
    main()
