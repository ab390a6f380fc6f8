"""The parts of benchmarks/gpu.py. Each measures one thing after another and yields what it has found so far."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from _device import Mark, milliseconds
from _gpu_runs import batches_on, on, photographs, random_store, watched_run
from _image_device import images_per_second, timm_loader
from _photographs import IMAGE_SIZE
from _report import ROOT
from lrn import FORMATS, MAPS, SHAPES, copied_bytes_per_ms
from lrn import measured as measured_lrn
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, RandomSampler
from torchvision import datasets, models, transforms
from train_step import NETWORKS, step

LARGE_NETWORKS = tuple(name for name in NETWORKS if name not in ("original_torch_lrn", "lenet"))
COMPILED = ("alexnet_torchvision", "alexnet_original", "original_no_lrn")
PLATFORM = "alexnet_torchvision"
IMAGENET, EPOCHS = 1_281_167, 90
END_TO_END, WITH_GRAPH, FEED = f"end to end, {PLATFORM}", f"end to end, {PLATFORM}, cuda-graph", "feed"
REFERENCES, REFERENCES_AMP = "torchvision's references loop", "torchvision's references loop with --amp"
TIMM = "timm's loader"
COMPARED = ((END_TO_END, REFERENCES), (END_TO_END, REFERENCES_AMP), (FEED, TIMM))
"""Ours and the peer. Ours reads stored pixels, and the peers decode JPEGs, as their users do."""


class Sizes(NamedTuple):
    """What is measured; `QUICK` is small, for the logic alone."""

    product: int = 8192
    copied: int = 2**30
    images: tuple[int, ...] = (128, 1024)
    rounds: int = 5
    store: int = 16_384
    batch: int = 128
    first: int = 20
    steps: int = 90
    photographs: int = 4096
    networks: tuple[str, ...] = LARGE_NETWORKS
    compiled: tuple[str, ...] = COMPILED


QUICK = Sizes(
    product=512,
    copied=2**20,
    images=(2,),
    rounds=1,
    store=64,
    batch=4,
    first=2,
    steps=3,
    photographs=768,
    networks=("alexnet_half_v2", "alexnet_original", "original_no_lrn"),
    compiled=("lenet",),
)


class Measured(NamedTuple):
    what: str
    value: float
    unit: str
    goal: float | None = None
    at_most: bool = False
    """Whether less is better."""


def limits(device: str, sizes: Sizes) -> Iterator[Measured]:
    """What the device itself can do."""
    side = sizes.product
    a, b = torch.randn(2, side, side, device=device)
    for label, dtype, precision in (
        ("bfloat16", torch.bfloat16, "highest"),
        ("TF32", torch.float32, "high"),
        ("float32", torch.float32, "highest"),
    ):
        torch.set_float32_matmul_precision(precision)
        left, right = a.to(dtype), b.to(dtype)
        speed = 2 * side**3 / repeated(lambda left=left, right=right: left @ right, device) / 1e9  # type: ignore[misc]
        yield Measured(f"matrix product, {label}", speed, "TFLOP/s")
    yield Measured("copy on the device", copied_bytes_per_ms(device, sizes.copied) / 1e9, "TB/s")
    host = torch.empty(sizes.batch * 3 * IMAGE_SIZE**2, dtype=torch.uint8, pin_memory=device == "cuda")
    copied = host.numel() / repeated(lambda: host.to(device, non_blocking=True, copy=True), device) / 1e6
    yield Measured("copy from page-locked memory", copied, "GB/s")


def lrn(device: str, sizes: Sizes) -> Iterator[Measured]:
    """Forward and backward of one layer over channels_last maps, as in lrn.py."""
    speed = copied_bytes_per_ms(device, sizes.copied)
    for layer, shape in SHAPES.items():
        for dtype in (torch.bfloat16, torch.float32) if device == "cuda" else (torch.float32,):
            maps = (sizes.images[0], *shape)
            times = measured_lrn(maps, FORMATS["channels_last"], sizes.rounds, device, dtype)
            ours, *peers = (float(np.median(times[way])) for way in ("ours", "each", "images"))
            floor = MAPS * torch.Size(maps).numel() * dtype.itemsize / speed
            label = f"LRN {layer}, {str(dtype)[6:]}"
            yield Measured(label, ours, "ms")
            yield Measured(f"{label}: over the floor", ours / floor, "x", 1.5, at_most=True)
            yield Measured(f"{label}: PyTorch's over ours", min(peers) / ours, "x", 8)


def steps(device: str, sizes: Sizes) -> Iterator[Measured]:
    """Training steps on one batch that stays on the device; float32 is torch's default, with TF32 convolutions."""
    torch.backends.cudnn.benchmark = True
    for label, half, precision in (("bf16", True, "high"), ("TF32", False, "high"), ("fp32", False, "highest")):
        torch.set_float32_matmul_precision(precision)
        for batch_size in reversed(sizes.images):
            yield from _networks(sizes.networks, batch_size, device, label, half)


def compiled(device: str, sizes: Sizes) -> Iterator[Measured]:
    """The same, compiled, in bfloat16."""
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    for batch_size in sizes.images:
        yield from _networks(sizes.compiled, batch_size, device, "bf16, compiled", True)


def _networks(names: Iterable[str], batch_size: int, device: str, label: str, half: bool) -> Iterator[Measured]:
    goals = {("bf16, compiled", 128): 35_000.0, ("bf16, compiled", 1024): 45_000.0}
    found: dict[str, float] = {}
    for name in names:
        torch.compiler.reset()  # a second batch size would be compiled for any size
        found[name] = repeated(step(name, batch_size, device, half, compiled="compiled" in label), device)
        goal = goals.get((label, batch_size)) if name == "alexnet_torchvision" else None
        yield Measured(f"{name}, {label}, {batch_size}", 1000 * batch_size / found[name], "images/s", goal)
        if {"alexnet_original", "original_no_lrn"} <= found.keys() and name in ("alexnet_original", "original_no_lrn"):
            ratio = found["alexnet_original"] / found["original_no_lrn"]
            goal = 1.1 if label.startswith("bf16") else None
            yield Measured(f"original over its twin without LRN, {label}, {batch_size}", ratio, "x", goal, at_most=True)


def synchronisations(device: str, sizes: Sizes) -> Iterator[Measured]:
    """Of the real command, between logged steps, with the input pipelines of 2012 and 2014."""
    first, counted, batch = 5, 4 if sizes is QUICK else 30, 8
    with random_store((first + counted + 3) * batch) as store:
        # The schedule of 2012 needs validation.
        for recipe, choice in (("krizhevsky_2012", "scheduler=constant"), ("one_weird_trick_2014", "seed=0")):
            found = watched_run(
                "Waits",
                first,
                counted,
                f"experiment={recipe}",
                *on(device, store, batch),
                *(choice, "trainer.log_every_n_steps=1000", "callbacks.progress=null"),
            )
            if device == "cuda" and found["control"] != 1:
                raise RuntimeError("a synchronisation made on purpose was not seen")
            waits = sum(found["synchronisations"].values())
            yield Measured(f"synchronisations per step, {recipe}", waits / counted, "", 0, at_most=True)


def platform(device: str, sizes: Sizes) -> Iterator[Measured]:
    """The real command on a uint8 store, a bare loop over its batches, and a bare loop with one batch on the device."""
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    with random_store(sizes.store) as store:
        choices = (f"model={PLATFORM}", "data=imagenet", *on(device, store, sizes.batch))
        # A CPU has no graphs to record.
        settings = {END_TO_END: ()} | ({WITH_GRAPH: ("compile=cuda-graph",)} if device == "cuda" else {})
        speeds = {}
        for label, more in settings.items():
            whole = watched_run("Clock", sizes.first, sizes.steps, *choices, *more)["images_per_second"]
            speeds[label] = whole
            yield Measured(label, whole, "images/s")
            minutes = EPOCHS * IMAGENET / whole / 60
            yield Measured(f"{EPOCHS} epochs of ImageNet, {label}", minutes, "min", 75, at_most=True)
        alone = 1000 * sizes.batch / repeated(step(PLATFORM, sizes.batch, device, half=True), device)
        yield Measured("compute alone, one batch on the device", alone, "images/s")
        bare = loop_speed(batches_on(device, store, sizes.batch), models.alexnet(), device, sizes, amp=torch.bfloat16)
        yield Measured("bare loop over the same batches", bare, "images/s")
        for label, whole in speeds.items():
            yield Measured(f"{label}, over compute alone", whole / alone, "x", 0.95)
            yield Measured(f"{label}, over the bare loop", whole / bare, "x", 0.95)


def feed(device: str, sizes: Sizes) -> Iterator[Measured]:
    """Batches of the uint8 store, cropped, flipped and normalised on the device."""
    with random_store(sizes.store) as store:
        batches = batches_on(device, store, sizes.batch)
        yield Measured(FEED, loop_speed(batches, None, device, sizes), "images/s", 40_000)


def checkpoint(device: str, sizes: Sizes) -> Iterator[Measured]:
    """How long a training step waits for a checkpoint of 488 MB, by checkpoint_stall.py."""
    command = [sys.executable, "benchmarks/checkpoint_stall.py", "--device", device, "--quick"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if ended.returncode:
        raise RuntimeError(ended.stderr[-2000:])
    waits = json.loads(ended.stdout.splitlines()[-1])["figures"]
    yield Measured("a step waits for a checkpoint", waits["background_wait_ms"] / 1000, "s", 0.05, at_most=True)
    yield Measured("a step waits for Lightning's checkpoint", waits["lightning_wait_ms"] / 1000, "s")


def peers(device: str, sizes: Sizes) -> Iterator[Measured]:
    """From JPEGs: the loop of pytorch/vision's references/classification, as documented, and timm's loader."""
    torch.backends.cudnn.benchmark = True
    with tempfile.TemporaryDirectory() as folder:
        tree = photographs(Path(folder), sizes.photographs)
        drawn = sizes.batch * (sizes.first + sizes.steps + 1)
        workers = min(os.cpu_count() or 1, 16)
        normalise = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        crop = [transforms.RandomResizedCrop(IMAGE_SIZE), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
        dataset = datasets.ImageFolder(str(tree), transforms.Compose([*crop, normalise]))
        # One epoch, since ImageNet's is longer than a measurement.
        sampler = RandomSampler(dataset, replacement=True, num_samples=drawn)
        loader = DataLoader(dataset, sizes.batch, sampler=sampler, num_workers=workers, pin_memory=device == "cuda")
        for label, amp in ((REFERENCES, None), (REFERENCES_AMP, torch.float16 if device == "cuda" else torch.bfloat16)):
            batches = ((images.to(device), labels.to(device)) for images, labels in loader)
            speed = loop_speed(batches, models.alexnet(), device, sizes, amp, reads_loss=True)
            yield Measured(label, speed, "images/s")
        try:
            timm = timm_loader(tree, sizes.photographs, device)
        except ImportError:
            print("timm is not installed: its loader is left out", flush=True)
            return
        yield Measured(TIMM, images_per_second(timm(), 2.0, device), "images/s")


PARTS: dict[str, tuple[Callable[[str, Sizes], Iterator[Measured]], int]] = {
    "limits": (limits, 15),
    "lrn": (lrn, 25),
    "steps": (steps, 80),
    "platform": (platform, 90),
    "synchronisations": (synchronisations, 60),
    "compiled": (compiled, 100),
    "feed": (feed, 20),
    "checkpoint": (checkpoint, 45),
    "peers": (peers, 45),
}
"""Each part with its limit in s; 8 minutes in all."""


def repeated(work: Callable[[], object], device: str) -> float:
    """Milliseconds after a warm-up, in which cuDNN and the compiler choose their kernels."""
    milliseconds(work, device, 5)
    return milliseconds(work, device, 15)


def loop_speed(
    batches: Iterable[tuple[Tensor, Tensor]],
    net: nn.Module | None,
    device: str,
    sizes: Sizes,
    amp: torch.dtype | None = None,
    reads_loss: bool = False,
) -> float:
    """Images/s of a plain loop: forward, cross-entropy, backward, SGD; without a network, of the batches alone.

    `reads_loss`: as in torchvision's references: contiguous, with the loss and the accuracies read in every step.
    """
    if net is not None:
        net.to(device, memory_format=torch.contiguous_format if reads_loss else torch.channels_last)  # type: ignore
    fused = True if device == "cuda" and not reads_loss else None
    optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9, fused=fused) if net is not None else None
    scaler = torch.amp.GradScaler(device, enabled=amp == torch.float16)
    images, start = 0, Mark(device)
    for number, (inputs, labels) in enumerate(islice(batches, sizes.first + sizes.steps)):
        if net is not None and optimizer is not None:
            with torch.autocast(device, amp) if amp else nullcontext():
                outputs = net(inputs)
                loss = cross_entropy(outputs, labels)
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            if reads_loss:
                hits = outputs.topk(5).indices == labels[:, None]
                _ = loss.item(), hits[:, :1].float().sum().item(), hits.float().sum().item()
        if number < sizes.first:
            start = Mark(device)
        else:
            images += len(labels)
    return images / Mark(device).seconds_since(start)
