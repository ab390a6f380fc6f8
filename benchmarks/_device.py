"""Shared by the benchmarks that also run on a GPU: the option, and times by CUDA events or, on a CPU, by the clock."""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where to measure (default: cpu)")


def check_device(device: str) -> str:
    """`device`, if torch can use it; otherwise the program ends with one line."""
    if device == "cuda" and not torch.cuda.is_available():
        sys.exit("--device cuda: torch finds no GPU that it can use")
    return device


def milliseconds(work: Callable[[], object], device: str, repeats: int = 20) -> float:
    """The time of `work`: on a CPU, of one call; on a GPU, the median of `repeats` calls, queued one after another."""
    if device == "cpu":
        start = time.perf_counter()
        work()
        return 1000 * (time.perf_counter() - start)
    pairs = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repeats)]
    for start_event, end_event in pairs:
        start_event.record()
        work()
        end_event.record()
    torch.cuda.synchronize()
    return statistics.median(start_event.elapsed_time(end_event) for start_event, end_event in pairs)


class Mark:
    """A moment on the device: when all work queued before it is done."""

    def __init__(self, device: str) -> None:
        self._event = torch.cuda.Event(enable_timing=True) if device == "cuda" else None
        self._time = time.perf_counter()
        if self._event is not None:
            self._event.record()

    def seconds_since(self, earlier: "Mark") -> float:
        if self._event is None or earlier._event is None:
            return self._time - earlier._time
        self._event.synchronize()
        return earlier._event.elapsed_time(self._event) / 1000


def trainer_on(device: str) -> pl.Trainer:
    """A trainer that trains nothing: a data module asks it for the device, where its loader then prepares batches."""
    accelerator = "gpu" if device == "cuda" else "cpu"
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    return pl.Trainer(accelerator=accelerator, devices=1, enable_model_summary=False, **quiet)
