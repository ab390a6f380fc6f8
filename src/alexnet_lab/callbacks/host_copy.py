"""Copies of checkpoints in host memory, which training does not change while they are written."""

import copy
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger(__name__)

ALIGNMENT = 64
"""Bytes to whose multiples the tensors' memory is aligned."""


class HostCopy:
    """Holds one copy at a time, in memory that is used again for the next one: page-locked if it comes from a GPU."""

    def __init__(self) -> None:
        self._memory = torch.empty(0, dtype=torch.uint8)

    @property
    def nbytes(self) -> int:
        """The size of the memory."""
        return self._memory.nbytes

    def of(self, checkpoint: dict[str, Any]) -> tuple[dict[str, Any], Callable[[], None]]:
        """A copy of the present state, and a function that waits until the GPU has filled it in.

        Copies from a GPU are queued, so its next kernels find the memory copied. Tensors that share memory do so in the
        copy as well, with the same strides.
        """
        tensors = [tensor for tensor in _tensors_in(checkpoint) if _has_memory(tensor)]
        storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage() for tensor in tensors}
        ends = [0]
        for storage in storages.values():
            ends.append(ends[-1] + -(-storage.nbytes() // ALIGNMENT) * ALIGNMENT)
        gpus = {storage.device for storage in storages.values() if storage.device.type == "cuda"}
        if self.nbytes < ends[-1]:
            self._memory = torch.empty(0, dtype=torch.uint8)  # released first
            self._memory = _host_memory(ends[-1], page_locked=bool(gpus))
        block, copied = self._memory.numpy(), {}
        for start, (key, storage) in zip(ends, storages.items(), strict=False):
            # From a slice of the array, since a slice of the tensor would share the storage of the whole.
            place = torch.from_numpy(block[start : start + storage.nbytes()])
            source = torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
            place.copy_(source, non_blocking=storage.device in gpus)
            copied[key] = place.untyped_storage()
        events = {gpu: torch.cuda.current_stream(gpu).record_event() for gpu in gpus}
        memo = {id(tensor): _on(copied[tensor.untyped_storage()._cdata], tensor) for tensor in tensors}
        return copy.deepcopy(checkpoint, memo), lambda: _wait_for(events)


def devices(checkpoint: dict[str, Any]) -> set[str]:
    """The kinds of devices of the tensors in `checkpoint`; `HostCopy` copies from `cpu` and `cuda`."""
    return {tensor.device.type for tensor in _tensors_in(checkpoint)}


def _tensors_in(content: Any) -> Iterator[Tensor]:
    """The tensors in plain containers, in their order."""
    if isinstance(content, Tensor):
        yield content
    elif isinstance(content, Mapping):
        for value in content.values():
            yield from _tensors_in(value)
    elif isinstance(content, list | tuple):
        for value in content:
            yield from _tensors_in(value)


def _host_memory(size: int, page_locked: bool) -> Tensor:
    """uint8 [size]; not page-locked where the system allows no more of that, which only makes the copies slower."""
    try:
        return torch.empty(size, dtype=torch.uint8, pin_memory=page_locked)
    except RuntimeError as error:
        if not page_locked:
            raise
        reason = str(error).partition("\n")[0]
        log.warning("no page-locked memory for checkpoints, so each holds up the training longer: %s", reason)
        return torch.empty(size, dtype=torch.uint8)


def _wait_for(events: Mapping[torch.device, torch.Event]) -> None:
    for gpu, event in events.items():
        # In a new thread the first GPU is the current one: torch would create a context on it, which costs memory.
        with torch.cuda.device(gpu):
            event.synchronize()


def _has_memory(tensor: Tensor) -> bool:
    """Whether a tensor is a plain view of memory; others, e.g. sparse ones, are left to `copy.deepcopy`."""
    return type(tensor) is Tensor and tensor.layout == torch.strided and not tensor.requires_grad


def _on(storage: torch.UntypedStorage, tensor: Tensor) -> Tensor:
    """The tensor with its memory in `storage`."""
    return torch.empty(0, dtype=tensor.dtype).set_(storage, tensor.storage_offset(), tensor.size(), tensor.stride())
