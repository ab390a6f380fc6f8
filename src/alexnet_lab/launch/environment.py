"""The environment variables by which other launchers tell a process its rank.

Imports nothing heavy: they are removed before torch and Lightning, which read them, are imported.
"""

import os
from collections.abc import Mapping

from alexnet_lab.launch import slurm

OF_TORCHRUN = ("LOCAL_", "RANK", "NODE_RANK", "GROUP_", "ROLE_", "WORLD_SIZE", "MASTER_", "TORCHELASTIC_")
OF_OTHERS = ("SLURM_", "PL_", "WANDB_SERVICE")
"""The last is a connection to another program's service, which may have ended."""
FOREIGN = (*OF_TORCHRUN, *OF_OTHERS)
"""Beginnings of the names."""


def without_foreign(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables for a process that this one starts."""
    return {name: value for name, value in environment.items() if not name.startswith(FOREIGN)}


def clean(rank: Mapping[str, str]) -> None:
    """Remove the foreign variables from this process, and set those of its `rank`; none where it is the only one.

    What Slurm told this process is kept by `slurm.here`.
    """
    slurm.here()
    for name in [name for name in os.environ if name.startswith(FOREIGN)]:
        del os.environ[name]
    os.environ.update(rank)


def of_torchrun() -> dict[str, str] | None:
    """What torchrun has set; None where it did not start this process."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    return {name: value for name, value in os.environ.items() if name.startswith(OF_TORCHRUN)}
