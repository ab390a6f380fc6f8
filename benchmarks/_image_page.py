"""The results of `image_feed.py` as a page and a plot."""

import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from _photographs import BATCH_SIZE
from torch import Tensor

PACKAGES = ("torch", "torchvision", "pillow", "simplejpeg", "timm", "litdata", "webdataset", "nvidia-dali-cuda130")


@dataclass(frozen=True)
class Feed:
    label: str
    kind: str
    """uint8 or float"""
    batches: Callable[[], Iterator[Tensor]]


def write_page(
    folder: Path,
    source: str,
    header: tuple[str, ...],
    rows: list[tuple[str, ...]],
    ratios: dict[str, float],
    figures: dict[str, float],
) -> None:
    """`image_feed.md`: the results and the machine."""
    table = [header, ("---", *["---:"] * (len(header) - 1)), *rows]
    lines = [
        "# Speed of loading photographs",
        "",
        f"Written by `python benchmarks/image_feed.py --source={source} --out={folder}`; its docstring explains",
        f"the comparison. {figures['images']:,} photographs of {source}, 2 workers or threads each, batches of",
        f"{BATCH_SIZE}; median of {figures['rounds']} alternating rounds, with the lowest and highest. The ratios are",
        "medians over the rounds.",
        "",
        *("| " + " | ".join(row) + " |" for row in table),
        "",
        *(f"- `{claim}`: {ratio:.2f}" for claim, ratio in ratios.items()),
        "",
        "![Images per second of each feed](image_feed.png)",
        "",
        f"Machine: {processor()}, {os.cpu_count()} cores; load before the run {figures['load_before']:.1f}. "
        f"Versions: {', '.join(versions())}.",
    ]
    (folder / "image_feed.md").write_text("\n".join(lines) + "\n")


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())


def versions() -> Iterator[str]:
    for package in PACKAGES:
        try:
            yield f"{package} {version(package)}"
        except PackageNotFoundError:
            continue


def plot(path: Path, feeds: dict[str, Feed], medians: dict[str, float]) -> None:
    """A bar chart, fastest at the top; hatched for float images."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = sorted(medians, key=medians.__getitem__)
    figure, axes = pyplot.subplots(figsize=(8, 0.5 + 0.35 * len(names)), layout="constrained")
    bars = axes.barh(
        [feeds[name].label for name in names],
        [medians[name] for name in names],
        color=["tab:orange" if feeds[name].label.startswith("ours") else "tab:gray" for name in names],
        hatch=["//" if feeds[name].kind == "float" else "" for name in names],
        edgecolor="white",
    )
    axes.bar_label(bars, fmt="{:,.0f}", padding=3)
    axes.set_xscale("log")
    axes.set_xlim(right=2 * max(medians.values()))
    axes.set_xlabel("images/s, 224x224, 2 workers or threads; hatched: normalised float")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
