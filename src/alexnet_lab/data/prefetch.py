"""A thread copies and prepares the next batch, on a stream of its own, while the network computes the current one."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import torch

from alexnet_lab.data.spec import Batch

Prepare = Callable[[Batch], Batch]
"""From a batch in page-locked memory to one on the device, ready for the network. Runs in the thread."""


@cache
def stream_of(device: torch.device) -> Any:
    """One stream per device for the whole process: torch keeps free memory for each stream separately."""
    return torch.get_device_module(device).Stream(device)


def prefetched(batches: Iterable[Batch], prepare: Prepare, device: torch.device) -> Iterator[Batch]:
    """Yields `prepare(batch)` for each batch, and begins that of the next batch before.

    The thread launches the copies and kernels of a batch, since launches limit the steps of a small network. There are
    two waits on the device:

    - Before a batch is prepared, the side stream waits for the work that the current stream had been given when the
      batch was begun: the network's on all batches but the current one. That one and the one before it are referenced
      here until the next one is requested. So the memory of a batch that was released can be used again, and no
      `record_stream` is needed, which would keep a batch's memory for as many steps as the host is ahead. A
      consumer that keeps a batch for longer than the next step must copy it.
    - Before a batch is yielded, the current stream waits until that batch is ready, and not for the next one.

    An error in a batch is raised after the batches before it were yielded.
    """
    module, side, source = torch.get_device_module(device), stream_of(device), iter(batches)

    def begin(given: Any) -> tuple[Batch, Any] | None:
        """The next batch and the event of its completion, or None after the last one."""
        batch = next(source, None)
        if batch is None:
            return None
        with module.stream(side):
            side.wait_event(given)
            return prepare(batch), side.record_event()

    earlier = batch = None  # referenced until they can be released, see above
    with ThreadPoolExecutor(1, "prefetch") as thread:
        following = thread.submit(begin, module.current_stream(device).record_event())
        while found := following.result():
            earlier, (batch, ready) = batch, found
            del found
            network = module.current_stream(device)
            following = thread.submit(begin, network.record_event())
            network.wait_event(ready)
            yield batch
    del earlier
