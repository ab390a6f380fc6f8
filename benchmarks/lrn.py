"""Local response normalisation, ours and PyTorch's, for the original's two shapes and both memory formats.

Forward and backward of one layer over a batch of 64, two towers each normalised by itself. Ours: `LocalResponseNorm`
with groups=2. Peer: `torch.nn.LocalResponseNorm`, which knows no groups, in the fastest of its ways to the same
values: over each tower and then concatenated, or over the towers as if they were images. Rounds alternate; of the
peer's ways the one with the smaller median counts, and of the rounds' own ratios the median. `lrn_vs_torch` is the
smallest of the four.

On a GPU (--device cuda), 128 images in float32 and bfloat16. The floor is the time to read and write the maps once in
each pass, five maps, at the measured speed of a copy; `lrn_over_floor` is the largest ratio of channels_last maps.
"""

import argparse
import statistics
from collections.abc import Callable
from functools import partial

import torch
from _device import add_device, check_device, milliseconds
from _report import median_ratio, report
from torch import Tensor, nn

from alexnet_lab.models.lrn import LocalResponseNorm

SHAPES = {"norm1": (96, 55, 55), "norm2": (256, 27, 27)}
IMAGES = {"cpu": 64, "cuda": 128}
DTYPES = {"cpu": (torch.float32,), "cuda": (torch.float32, torch.bfloat16)}
MAPS = 5
"""Read and written: x and y forward; x, the gradient and dx backward."""
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
    add_device(parser)
    arguments = parser.parse_args()
    rounds, device = 1 if arguments.quick else 9, check_device(arguments.device)
    speed = copied_bytes_per_ms(device) if device == "cuda" else None

    rows: list[tuple[str, ...]] = []
    ratios: list[float] = []
    floors: list[float] = []
    figures: dict[str, float] = {}
    for layer, shape in SHAPES.items():
        for label, memory_format in FORMATS.items():
            for dtype in DTYPES[device]:
                times = measured((IMAGES[device], *shape), memory_format, rounds, device, dtype)
                medians = {way: statistics.median(times[way]) for way in WAYS}
                peer = min("each", "images", key=lambda way: medians[way])
                ratios.append(median_ratio(times[peer], times["ours"]))
                name = f"{layer} {label}" + (f" {str(dtype)[6:]}" if device == "cuda" else "")
                decimals = 3 if device == "cuda" else 0
                rows.append((name, *(f"{medians[way]:.{decimals}f}" for way in WAYS), f"{ratios[-1]:.2f}"))
                key = name.replace(" ", "_")
                figures |= {f"{key}_ms": medians["ours"], f"{key}_torch_ms": medians[peer]}
                if speed:
                    floor = MAPS * IMAGES[device] * torch.Size(shape).numel() * dtype.itemsize / speed
                    figures[f"{key}_floor_ms"] = floor
                    rows[-1] = (*rows[-1], f"{medians['ours'] / floor:.2f}")
                    floors += [medians["ours"] / floor] if label == "channels_last" else []
    header = ("layer, format", "ours, ms", "torch, each tower, ms", "torch, towers as images, ms", "ratio")
    figures |= {"rounds": rounds, "torch_threads": torch.get_num_threads()}
    claims = {"lrn_vs_torch": min(ratios)} | ({"lrn_over_floor": max(floors)} if floors else {})
    report("lrn", (*header, "over the floor") if speed else header, rows, claims, figures)


def measured(
    shape: tuple[int, ...],
    memory_format: torch.memory_format,
    rounds: int,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> dict[str, list[float]]:
    """Milliseconds of each variant per round, after a warm-up round."""
    torch.manual_seed(0)
    x = (50 * torch.randn(shape)).relu_().to(device, dtype).contiguous(memory_format=memory_format).requires_grad_()
    grad = torch.randn(shape).to(device, dtype).contiguous(memory_format=memory_format)
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(1 + rounds):
        for way, norm in WAYS.items():
            times[way].append(milliseconds(partial(forward_and_backward, norm, x, grad), device))
    return {way: values[1:] for way, values in times.items()}


def forward_and_backward(norm: Callable[[Tensor], Tensor], x: Tensor, grad: Tensor) -> None:
    torch.autograd.grad(norm(x), x, grad)


def copied_bytes_per_ms(device: str, size: int = 2**30) -> float:
    """Bytes read and written per ms by a copy of `size` bytes on the device."""
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    milliseconds(lambda: target.copy_(source), device, 3)
    return 2 * size / milliseconds(lambda: target.copy_(source), device)


if __name__ == "__main__":
    main()
