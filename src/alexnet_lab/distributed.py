"""Which of several ranks this process is.

Imports nothing heavy.
"""

import os
from typing import Any


def rank() -> int:
    """The rank of this process, as torchrun, srun or the supervisor has set it; 0 where it is the only one."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """The rank of this process among those on this machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def ranks() -> int:
    """How many processes train together, on all machines."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def replica(trainer: Any) -> tuple[int, int]:
    """Which copy of the network this process trains, and how many copies there are. They divide each batch.

    With DDP, rank and world size; the processes of lightning strategies that cut up the network see the same samples.
    """
    kwargs = trainer.distributed_sampler_kwargs  # None on a single device
    return (kwargs["rank"], kwargs["num_replicas"]) if kwargs else (0, 1)
