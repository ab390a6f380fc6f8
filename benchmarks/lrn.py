"""Local response normalisation, ours and PyTorch's, for the original's two shapes and both memory formats.

Forward and backward of one layer over a batch of 64, two towers each normalised by itself. Ours: `LocalResponseNorm`
with groups=2. Peer: `torch.nn.LocalResponseNorm`, which knows no groups, in the fastest of its ways to the same
values: over each tower and then concatenated, or over the towers as if they were images. Rounds alternate; of the
peer's ways the one with the smaller median counts, and of the rounds' own ratios the median. `lrn_vs_torch` is the
smallest of the four.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from _report import median_ratio, report
from torch import Tensor, nn

from alexnet_lab.models.lrn import LocalResponseNorm

SHAPES = {"norm1": (64, 96, 55, 55), "norm2": (64, 256, 27, 27)}
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
TOWERS = 2
OURS = LocalResponseNorm(groups=TOWERS)
PEER = nn.LocalResponseNorm(OURS.size, OURS.alpha, OURS.beta, OURS.k)


def each_tower(x: Tensor) -> Tensor:
    return torch.cat([PEER(tower) for tower in x.chunk(TOWERS, 1)], 1)


def towers_as_images(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    y: Tensor = PEER(x.reshape(TOWERS * n, c // TOWERS, h, w)).reshape(n, c, h, w)
    return y


WAYS: dict[str, Callable[[Tensor], Tensor]] = {"ours": OURS, "each": each_tower, "images": towers_as_images}


def main() -> None:
    parser = argparse.ArgumentParser(description="Time of local response normalisation, PyTorch's divided by ours.")
    parser.add_argument("--quick", action="store_true", help="one round, within a minute")
    rounds = 1 if parser.parse_args().quick else 9

    rows: list[tuple[str, ...]] = []
    ratios: list[float] = []
    figures: dict[str, float] = {}
    for layer, shape in SHAPES.items():
        for label, memory_format in FORMATS.items():
            times = measured(shape, memory_format, rounds)
            medians = {way: statistics.median(times[way]) for way in WAYS}
            peer = min("each", "images", key=lambda way: medians[way])
            ratios.append(median_ratio(times[peer], times["ours"]))
            rows.append((f"{layer} {label}", *(f"{medians[way]:.0f}" for way in WAYS), f"{ratios[-1]:.2f}"))
            figures |= {f"{layer}_{label}_ms": medians["ours"], f"{layer}_{label}_torch_ms": medians[peer]}
    header = ("layer, format", "ours, ms", "torch, each tower, ms", "torch, towers as images, ms", "ratio")
    figures |= {"rounds": rounds, "torch_threads": torch.get_num_threads()}
    report("lrn", header, rows, {"lrn_vs_torch": min(ratios)}, figures)


def measured(shape: tuple[int, ...], memory_format: torch.memory_format, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each variant per round, after a warm-up round."""
    torch.manual_seed(0)
    x = (50 * torch.randn(shape)).relu_().contiguous(memory_format=memory_format).requires_grad_()
    grad = torch.randn(shape).contiguous(memory_format=memory_format)
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(1 + rounds):
        for way, norm in WAYS.items():
            start = time.perf_counter()
            torch.autograd.grad(norm(x), x, grad)
            times[way].append(1000 * (time.perf_counter() - start))
    return {way: values[1:] for way, values in times.items()}


if __name__ == "__main__":
    main()
