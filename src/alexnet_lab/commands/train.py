"""Starts or continues the run that the configuration describes."""

import sys
from contextlib import suppress
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from alexnet_lab.errors import UserError
from alexnet_lab.launch.planning import _print_finished, join, objective, plan, start, started_from_outside


def train(config: DictConfig) -> float | None:
    """Start or continue the run that `config` describes, and wait for its end.

    Returns the best val/top1, for a sweeper. If a rank fails, the program ends with its exit status.

    Raises:
        UserError: the folder is in use, or contains a different run.
    """
    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        todo = plan(config, folder)
        if todo is None:
            _print_finished(folder)
            return objective(folder)
        status = join(todo) if started_from_outside() else start(todo)
    except (UserError, OmegaConfBaseException):
        with suppress(OSError):
            folder.rmdir()  # Hydra has created it; only an empty folder is removed
        raise
    if status:
        sys.exit(status)
    return objective(folder)
