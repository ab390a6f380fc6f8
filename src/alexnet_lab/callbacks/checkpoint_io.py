"""Writes checkpoints whole: a kill or a full disk leaves the older one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from alexnet_lab import files
from alexnet_lab.errors import cannot_be_written


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint to a temporary file, flushes it to disk, and renames it: a kill leaves the older one intact.

    On a full disk the older one stays, too, and RunFailed is raised.
    `payload` are plain entries added to every checkpoint; lightning's hook for it leaves weights-only ones out.
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
            cause = error if isinstance(error, OSError) else error.__context__  # torch raises an error of its own
            if isinstance(cause, OSError):
                raise cannot_be_written(path, cause) from error
            raise
