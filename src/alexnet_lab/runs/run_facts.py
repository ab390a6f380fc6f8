"""The entries of `result.json` besides the metrics: the network's size, versions, hardware."""

import os
import resource
import sys
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import nn

from alexnet_lab import revision
from alexnet_lab.models.table import LayerRow, count_parameters, total_macs
from alexnet_lab.runs import result_file


def known_before(net: nn.Module, layers: Sequence[LayerRow]) -> dict[str, Any]:
    """The entries known before the run begins; the network must be contiguous and not compiled."""
    return {
        "parameters": count_parameters(net),
        "macs": total_macs(layers),
        "git": revision.revision(),
        "versions": result_file.versions(),
    }


def peak_memory(trainer: pl.Trainer) -> dict[str, int]:
    """The most memory used so far, in MB: by this process, mapped files included, and on a GPU by its tensors."""
    device = trainer.strategy.root_device
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    peak = {"process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if device.type == "cuda":
        peak["gpu"] = torch.cuda.max_memory_allocated(device)
    return {name: round(size / 1e6) for name, size in peak.items()}


def hardware(trainer: pl.Trainer) -> dict[str, Any]:
    gpu = trainer.strategy.root_device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(trainer.strategy.root_device) if gpu else result_file.processor(),
        "accelerator": trainer.strategy.root_device.type,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
