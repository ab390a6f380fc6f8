"""Reports running out of memory in one line with remedies."""

import contextlib
import errno
import re
from collections.abc import Callable, Iterator

import lightning.pytorch as pl

from alexnet_lab.distributed import replica
from alexnet_lab.errors import RunFailed, UserError

FULL = re.compile(
    r"out of memory|STATUS_ALLOC_FAILED|ALLOCATION_FAILED|DefaultCPUAllocator: can't allocate memory", re.IGNORECASE
)
"""What errors of PyTorch, CUDA, cuDNN, cuBLAS, NCCL and Triton have in common."""


@contextlib.contextmanager
def remedies_when_full(error: type[Exception], remedies: str) -> Iterator[None]:
    """Turns out-of-memory errors, on a GPU or the host, into `error` with one line."""
    try:
        yield
    except Exception as cause:
        if (reason := explained(cause, error, lambda: remedies)) is cause:
            raise
        raise reason from cause


def explained(cause: BaseException, error: type[Exception], remedies: Callable[[], str]) -> BaseException:
    """An `error` with the remedies for an out-of-memory error; any other `cause` unchanged."""
    if not is_out_of_memory(cause):
        return cause
    return error(f"out of memory: {_request(str(cause))}; possible remedies: {remedies()}")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory of a GPU or the host ran out."""
    if isinstance(error, (RunFailed, UserError)):
        return False
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and FULL.search(str(error)) is not None)


def training_remedies(trainer: pl.Trainer, batch_size: int) -> str:
    """What makes the run need less memory where it is now; only what is not in use yet."""
    _, replicas = replica(trainer)
    return remedies(
        batch_size / replicas,
        trainer.accumulate_grad_batches,
        str(trainer.precision),
        trainer.state.stage is not None and trainer.state.stage.evaluating,
    )


def remedies(share: float, accumulate: int, precision: str, evaluating: bool) -> str:
    """What makes a training need less memory, or its evaluation; only what is not in use yet.

    Args:
        share: images per optimizer step and copy of the network.
        accumulate: micro-batches per optimizer step.
        precision: as lightning names it.
    """
    found = []
    if evaluating:
        found.append("a smaller data.eval_batch_size")
    elif share > accumulate:
        found.append("a smaller data.batch_size")
        found.append(f"trainer.accumulate_grad_batches={2 * accumulate} with the same batch and gradient")
    if precision in ("32-true", "64-true"):
        found.append("trainer.precision=bf16-mixed")
    *first, last = found or ["a smaller network or smaller images"]
    return f"{', '.join(first)}{',' if len(first) > 1 else ''} or {last}" if first else last


def _request(text: str) -> str:
    """The failed allocation, from the message of PyTorch or NumPy."""
    gpu = re.search(r"Tried to allocate (\S+ \w+)\. GPU (\d+) has a total capacity of (\S+ \w+)", text)
    if gpu:
        return f"allocating {gpu[1]} failed on GPU {gpu[2]} with {gpu[3]}"
    if host := re.search(r"you tried to allocate (\d+) bytes", text):
        return f"allocating {int(host[1]) / 2**30:.2f} GiB failed on the host"
    if host := re.search(r"Unable to allocate (\S+ \w+) for an array", text):
        return f"allocating {host[1]} failed on the host"
    return "an allocation failed"
