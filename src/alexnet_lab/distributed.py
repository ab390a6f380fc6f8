"""The rank of this process, and the number of ranks.

Imports nothing heavy.
"""

import os
from typing import Any


def rank() -> int:
    """The rank of this process, set by torchrun, srun or the launcher; 0 if it is the only one."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """The rank of this process on this machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def ranks() -> int:
    """The number of processes that train together, on all machines."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def processes(number: int | None) -> str:
    """`1 process`, `2 processes`."""
    return f"{number} process{'es' * (number != 1)}"


def replica(trainer: Any) -> tuple[int, int]:
    """The index of the network's copy that this process trains, and the number of copies, which share each batch.

    With DDP, rank and world size; the processes of lightning strategies that cut up the network see the same samples.
    """
    kwargs = trainer.distributed_sampler_kwargs  # None on a single device
    return (kwargs["rank"], kwargs["num_replicas"]) if kwargs else (0, 1)
