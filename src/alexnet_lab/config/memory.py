"""Reports running out of memory in one line with remedies."""

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
    """Turns PyTorch's out-of-memory errors, on a GPU or the host, into `error` with one line."""
    try:
        yield
    except RuntimeError as cause:
        if (reason := explained(cause, error, remedies)) is cause:
            raise
        raise reason from cause


def explained(cause: BaseException, error: type[Exception], remedies: str) -> BaseException:
    """An `error` with the remedies for an out-of-memory error of PyTorch; any other `cause` unchanged."""
    if isinstance(cause, torch.OutOfMemoryError) or (isinstance(cause, RuntimeError) and _HOST in str(cause)):
        return error(f"out of memory: {_request(str(cause))}; possible remedies: {remedies}")
    return cause


def _request(text: str) -> str:
    """The failed allocation, from PyTorch's message."""
    gpu = re.search(r"Tried to allocate (\S+ \w+)\. GPU (\d+) has a total capacity of (\S+ \w+)", text)
    if gpu:
        return f"allocating {gpu[1]} failed on GPU {gpu[2]} with {gpu[3]}"
    host = re.search(r"you tried to allocate (\d+) bytes", text)
    return f"allocating {int(host[1]) / 2**30:.2f} GiB failed on the host" if host else "an allocation failed"
