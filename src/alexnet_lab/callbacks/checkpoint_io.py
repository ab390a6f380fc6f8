"""Writes checkpoints atomically: after a kill or on a full disk, the older one is intact."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from alexnet_lab import files
from alexnet_lab.errors import cannot_be_written


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint to a temporary file, flushes it to disk, and renames it.

    After a kill, the older checkpoint is intact; on a full disk as well, and RunFailed is raised. `payload` contains
    plain entries that are added to every checkpoint; lightning's hook for this skips weights-only checkpoints.
    """

    def __init__(self, payload: Mapping[str, Any]) -> None:
        super().__init__()
        self._payload = payload

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            with files.replacing(Path(path)) as unfinished, unfinished.open("wb") as file:
                torch.save({**checkpoint, **self._payload}, file)
        except Exception as error:
            cause = error if isinstance(error, OSError) else error.__context__  # torch raises its own error
            if isinstance(cause, OSError):
                raise cannot_be_written(path, cause) from error
            raise
