"""A training step of each network: the cost of normalisation in the original, and the fraction of the machine's peak.

A step: forward, mean cross-entropy, backward, SGD with momentum, 64 images at the published input in channels_last.
The original alternates with itself with PyTorch's `LocalResponseNorm` in place of ours (the towers as if they were
images, its fastest way in this memory format) and with itself without normalisation. Medians of alternating rounds,
and of their own ratios.

- `original_vs_torch_lrn`: speed over the one with PyTorch's.
- `original_vs_no_lrn`: time over the one without.
- `peak_share_NETWORK`: 2 x batch x (3 x MACs less the first layer's, of whose input there is no gradient) / time over
  the rate of a 2048 x 2048 float32 matrix product, measured between the steps. A step also pools, activates, updates
  weights and moves what it works on. Above 1 where the convolutions' library makes more of the processor than that of
  matrix products, as on AMD's with AVX-512.
- `memory_vs_no_lrn`: the highest memory of two steps over the twin's, each in a process of its own and above that
  before the network. What normalisation adds are its outputs, which the pools keep: 71 and 46 MiB.

On a GPU (--device cuda): torch's default precision, which is TF32 in convolutions, and fused SGD; the peak is that of a
float32 product of 8192, and memory is what torch allocated. benchmarks/gpu.py measures the other precisions.
"""

import argparse
import multiprocessing
import statistics
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import torch
from _device import add_device, check_device, milliseconds
from _report import median_ratio, report
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from alexnet_lab.models.alexnet_d2l import alexnet_d2l
from alexnet_lab.models.alexnet_half import alexnet_half_v1, alexnet_half_v2
from alexnet_lab.models.alexnet_original import alexnet_original
from alexnet_lab.models.alexnet_torchvision import alexnet_torchvision
from alexnet_lab.models.alexnet_ungrouped import alexnet_ungrouped
from alexnet_lab.models.bvlc_alexnet import bvlc_alexnet
from alexnet_lab.models.caffenet import caffenet
from alexnet_lab.models.lenet import lenet
from alexnet_lab.models.lrn import LocalResponseNorm
from alexnet_lab.models.table import layer_table

PEAK_SIDE = {"cpu": 2048, "cuda": 8192}


class TorchLrn(nn.Module):
    """Replaces our normalisation by PyTorch's, with the towers as images."""

    def __init__(self, ours: LocalResponseNorm) -> None:
        super().__init__()
        self.norm = nn.LocalResponseNorm(ours.size, ours.alpha, ours.beta, ours.k)
        self.towers = ours.groups

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        y: Tensor = self.norm(x.reshape(self.towers * n, c // self.towers, h, w)).reshape(n, c, h, w)
        return y


def with_torch_lrn() -> nn.Module:
    net = alexnet_original()
    for name, layer in list(net.named_children()):
        if isinstance(layer, LocalResponseNorm):
            setattr(net, name, TorchLrn(layer))
    return net


def without_lrn() -> nn.Module:
    return alexnet_original(norm="none")


# name: factory, channels and side of its published input
NETWORKS: dict[str, tuple[Callable[[], nn.Module], int, int]] = {
    "alexnet_original": (alexnet_original, 3, 224),
    "original_torch_lrn": (with_torch_lrn, 3, 224),
    "original_no_lrn": (without_lrn, 3, 224),
    "bvlc_alexnet": (bvlc_alexnet, 3, 227),
    "caffenet": (caffenet, 3, 227),
    "alexnet_ungrouped": (alexnet_ungrouped, 3, 227),
    "alexnet_torchvision": (alexnet_torchvision, 3, 224),
    "alexnet_d2l": (alexnet_d2l, 1, 224),
    "alexnet_half_v1": (alexnet_half_v1, 3, 224),
    "alexnet_half_v2": (alexnet_half_v2, 3, 224),
    "lenet": (lenet, 1, 28),
}
TWINS = ("alexnet_original", "original_torch_lrn", "original_no_lrn")
TWINS_TIMES = 2


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and memory of a training step of every network.")
    parser.add_argument("--quick", action="store_true", help="an eighth of the batch and one round, within a minute")
    add_device(parser)
    arguments = parser.parse_args()
    batch_size, rounds = (8, 1) if arguments.quick else (64, 7)
    device = check_device(arguments.device)
    torch.backends.cudnn.benchmark = True  # as in training; without effect on a CPU

    times: dict[str, list[float]] = {}
    rates: dict[str, float] = {}  # FLOP/s, and the fraction of the peak
    peaks: dict[str, float] = {}
    shares: dict[str, float] = {}
    for group in (TWINS, *((name,) for name in NETWORKS if name not in TWINS)):
        # On a shared machine, the ratio per round varies between 0.8 and 2.0, so more rounds are needed.
        beside = measured(group, batch_size, TWINS_TIMES * rounds if group is TWINS else rounds, device)
        product = 2 * PEAK_SIDE[device] ** 3
        for name in group:
            factory, channels, side = NETWORKS[name]
            times[name] = beside[name]
            with torch.device("meta"):
                macs = [row.macs for row in layer_table(factory(), channels, side) if row.macs]
            operations = 2 * batch_size * (3 * sum(macs) - macs[0])
            rates[name] = operations / statistics.median(beside[name])
            peaks[name] = product / statistics.median(beside["peak"])
            shares[name] = operations / product * median_ratio(beside["peak"], beside[name])
    memory = {name: peak_memory(name, batch_size, device) for name in ("alexnet_original", "original_no_lrn")}

    seconds = {name: statistics.median(values) for name, values in times.items()}
    ratios = {
        "original_vs_torch_lrn": median_ratio(times["original_torch_lrn"], times["alexnet_original"]),
        "original_vs_no_lrn": median_ratio(times["alexnet_original"], times["original_no_lrn"]),
        "memory_vs_no_lrn": memory["alexnet_original"] / memory["original_no_lrn"],
    } | {f"peak_share_{name}": share for name, share in shares.items() if name not in TWINS[1:]}
    report(
        "train_step",
        ("network", "step, ms", "images/s", "GFLOP/s", "peak beside it", "share"),
        [
            (
                name,
                f"{1000 * seconds[name]:,.0f}",
                f"{batch_size / seconds[name]:,.0f}",
                f"{rates[name] / 1e9:.0f}",
                f"{peaks[name] / 1e9:.0f}",
                f"{shares[name]:.2f}",
            )
            for name in NETWORKS
        ],
        ratios,
        {f"{name}_ms": 1000 * value for name, value in seconds.items()}
        | {f"{name}_mib": value for name, value in memory.items()}
        | {"batch_size": batch_size, "rounds": rounds, "torch_threads": torch.get_num_threads()},
    )


def measured(names: tuple[str, ...], batch_size: int, rounds: int, device: str) -> dict[str, list[float]]:
    """Seconds per step of each network and per matrix product ("peak") in each round after a warm-up round."""
    a, b = torch.randn(2, PEAK_SIDE[device], PEAK_SIDE[device], device=device)
    works: dict[str, Callable[[], object]] = {name: step(name, batch_size, device) for name in names}
    works["peak"] = lambda: torch.mm(a, b)
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(1 + rounds):
        for name, work in works.items():
            times[name].append(milliseconds(work, device) / 1000)
    return {name: values[1:] for name, values in times.items()}


def step(
    name: str, batch_size: int, device: str = "cpu", half: bool = False, compiled: bool = False
) -> Callable[[], None]:
    """A training step on one batch that stays on the device; `half`: bfloat16 by autocast."""
    torch.manual_seed(0)
    factory, channels, side = NETWORKS[name]
    net = factory().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.randn(batch_size, channels, side, side, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(10, (batch_size,), device=device)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9, fused=True if device == "cuda" else None)
    if compiled:
        net.compile()

    def work() -> None:
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16) if half else nullcontext():
            loss = cross_entropy(net(images), labels)
        loss.backward()
        optimizer.step()

    return work


def peak_memory(name: str, batch_size: int, device: str) -> float:
    """Peak MiB of two steps, in a fresh process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak_memory, name, batch_size, device).result()


def _peak_memory(name: str, batch_size: int, device: str) -> float:
    torch.mm(torch.ones(64, 64, device=device), torch.ones(64, 64, device=device))  # buffers of the libraries
    before = resident("VmRSS")
    work = step(name, batch_size, device)
    work()
    work()
    return torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else resident("VmHWM") - before


def resident(field: str) -> float:
    """MiB of this process; Linux's ru_maxrss would include the parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


if __name__ == "__main__":
    main()
