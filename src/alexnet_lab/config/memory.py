"""Memory that ran out ends a command in one line with the remedies."""

import contextlib
import re
from collections.abc import Iterator

import torch

TRAINING_REMEDIES = (
    "a smaller data.batch_size, trainer.accumulate_grad_batches={twice} with the same batch and gradient, or "
    "trainer.precision=bf16-mixed"
)
_HOST = "DefaultCPUAllocator: can't allocate memory"


@contextlib.contextmanager
def remedies_when_full(error: type[Exception], remedies: str) -> Iterator[None]:
    """Turns PyTorch's out-of-memory errors, of a GPU and of the host, into `error` with one line."""
    try:
        yield
    except RuntimeError as cause:
        if (reason := explained(cause, error, remedies)) is cause:
            raise
        raise reason from cause


def explained(cause: BaseException, error: type[Exception], remedies: str) -> BaseException:
    """An `error` with the remedies in place of PyTorch's out-of-memory error; any other `cause` as it is."""
    if isinstance(cause, torch.OutOfMemoryError) or (isinstance(cause, RuntimeError) and _HOST in str(cause)):
        return error(f"out of memory: {_wanted(str(cause))}; what helps: {remedies}")
    return cause


def _wanted(text: str) -> str:
    """What the allocator could not give, from PyTorch's text."""
    gpu = re.search(r"Tried to allocate (\S+ \w+)\. GPU (\d+) has a total capacity of (\S+ \w+)", text)
    if gpu:
        return f"{gpu[1]} more were asked for on GPU {gpu[2]} of {gpu[3]}"
    host = re.search(r"you tried to allocate (\d+) bytes", text)
    return f"{int(host[1]) / 2**30:.2f} GiB more were asked for on the host" if host else "an allocation failed"
