"""The next batch is copied and prepared on a stream of its own while the network computes the current one."""

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any

import torch

from alexnet_lab.data.spec import Batch

Prepare = Callable[[Batch], Batch]
"""From a batch in page-locked memory to one on the device, ready for the network."""


@cache
def stream_of(device: torch.device) -> Any:
    """One stream per device for the whole process: torch keeps free memory for each stream separately."""
    return torch.get_device_module(device).Stream(device)


def prefetched(batches: Iterable[Batch], prepare: Prepare, device: torch.device) -> Iterator[Batch]:
    """Yields `prepare(batch)` for each batch, and begins that of the next batch before.

    Two waits on the device, none of the host:

    - Before a batch is prepared, the side stream waits for the work that the current stream has been given. That is the
      network's on all batches but the current one, so that the memory of a batch that was released can be used again,
      and no `record_stream` is needed, which would keep a batch's memory for as many steps as the host is ahead.
    - Before a batch is yielded, the current stream waits until that batch is ready, and not for the next one.

    An error in a batch is raised after the batches before it were yielded.
    """
    module, side = torch.get_device_module(device), stream_of(device)
    ahead: tuple[Batch, Any] | None = None

    def arrived(batch: Batch, ready: Any) -> Batch:
        module.current_stream(device).wait_event(ready)
        return batch

    try:
        for batch in batches:
            side.wait_stream(module.current_stream(device))
            with module.stream(side):
                following = prepare(batch), side.record_event()
            if ahead is not None:
                yield arrived(*ahead)
            ahead = following
            del following
    except Exception:
        if ahead is not None:
            yield arrived(*ahead)
        raise
    if ahead is not None:
        yield arrived(*ahead)
