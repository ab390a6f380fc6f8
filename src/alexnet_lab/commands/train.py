"""Starts or continues the run that the configuration describes."""

import sys
from contextlib import suppress
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from alexnet_lab.errors import UserError
from alexnet_lab.launch import job, running
from alexnet_lab.launch.planning import objective, plan, print_finished
from alexnet_lab.launch.stopping import ignore_until_exit


def train(config: DictConfig) -> float | None:
    """Start or continue the run that `config` describes, in this process where it has one rank.

    Returns the best val/top1, for a sweeper. Ends the program with the run's exit status when it did not finish.

    Raises:
        UserError: the folder is in use, or contains a different run.
    """
    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        planned = plan(config, folder)
        if planned is None:
            print_finished(folder)
            return objective(folder)
        status = job.run_in_process(planned) if HydraConfig.get().mode == RunMode.MULTIRUN else running.run(planned)
    except (UserError, OmegaConfBaseException, KeyboardInterrupt):
        with suppress(OSError):
            folder.rmdir()  # Hydra has created it; only an empty folder is removed
        raise
    if HydraConfig.get().mode == RunMode.RUN:
        ignore_until_exit()
    if status:
        sys.exit(status)
    return objective(folder)
