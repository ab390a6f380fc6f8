"""Shared by the benchmarks: importing the package without an install, and the report at the end."""

import json
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

sys.path.insert(0, str(ROOT / "src"))
os.chdir(ROOT)  # the configuration's paths are relative to the project's root


def report(
    benchmark: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    ratios: Mapping[str, float],
    figures: Mapping[str, float],
) -> None:
    """Prints a table, the ratio of each claim, and the same as JSON in the last line."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    for row in (header, ["-" * width for width in widths], *rows):
        first, *others = (
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join([first, *others]))
    print()
    for claim, ratio in ratios.items():
        print(f"{claim}: {ratio:.2f}")
    print(json.dumps({"benchmark": benchmark, "ratios": dict(ratios), "figures": dict(figures)}))


def median_ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """Median of the ratios per round, in which both measurements are close in time: the machine's speed drifts."""
    return statistics.median(a / b for a, b in zip(over, under, strict=True))
