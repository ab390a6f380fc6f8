"""Running out of memory is reported in one line with remedies."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from alexnet_lab.classifier import ImageClassifier
from alexnet_lab.config.memory import explained, is_out_of_memory, remedies, remedies_when_full
from alexnet_lab.errors import FAILED, USER_ERROR, RunFailed, UserError
from alexnet_lab.launch import ending, rank, starting
from alexnet_lab.launch.stopping import StopRequests
from alexnet_lab.runs import folders, result_file

GPU = (
    "CUDA out of memory. Tried to allocate 64.91 GiB. GPU 0 has a total capacity of 139.80 GiB of which 60.83 GiB is "
    "free. Process 447 has 2.14 GiB memory in use."
)


def test_full_gpu_is_reported_in_one_line_with_three_remedies() -> None:
    with pytest.raises(RunFailed) as caught, remedies_when_full(RunFailed, remedies(128, 1, "32-true", False)):
        raise torch.OutOfMemoryError(GPU)
    assert str(caught.value) == (
        "out of memory: allocating 64.91 GiB failed on GPU 0 with 139.80 GiB; possible remedies: a smaller "
        "data.batch_size, trainer.accumulate_grad_batches=2 with the same batch and gradient, or "
        "trainer.precision=bf16-mixed"
    )


def test_full_host_memory_is_reported_in_one_line() -> None:
    with (
        pytest.raises(
            UserError, match=r"^out of memory: allocating [\d.]+ GiB failed on the host; .* a smaller batch_size$"
        ),
        remedies_when_full(UserError, "a smaller batch_size"),
    ):
        torch.empty(2**48, dtype=torch.uint8)


def test_other_errors_are_unchanged() -> None:
    with pytest.raises(RuntimeError, match=r"^another$"), remedies_when_full(UserError, ""):
        raise RuntimeError("another")


@pytest.mark.parametrize(
    ("error", "request_"),
    [
        (
            RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later"),
            "an allocation",
        ),
        (torch.AcceleratorError("CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation'"), "an allocation"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "an allocation"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), "an allocation"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "an allocation"),
        (
            RuntimeError("NCCL error: unhandled cuda error\nCuda failure 2 'out of memory'"),
            "an allocation",
        ),
        (RuntimeError("Triton Error [CUDA]: out of memory"), "an allocation"),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1.00 GB, max allowed: 9.07 GB)"), "an allocation"),
        (
            RuntimeError("Caught RuntimeError in pin memory thread.\nCUDA error: out of memory"),
            "an allocation",
        ),
        (MemoryError("Unable to allocate 3.20 GiB for an array with shape (1, 2)"), "allocating 3.20 GiB"),
        (MemoryError(), "an allocation"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "an allocation"),
    ],
)
def test_every_library_that_runs_out_of_memory_is_reported_in_one_line(error: Exception, request_: str) -> None:
    found = str(explained(error, RunFailed, lambda: "less"))
    assert found.startswith(f"out of memory: {request_} failed")
    assert found.endswith("; possible remedies: less")
    assert "\n" not in found


@pytest.mark.parametrize(
    "error",
    [
        RunFailed("another rank ended; was it killed (out of memory?)"),
        UserError("out of memory: an allocation failed"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("out of resource: shared memory, Required: 262144"),
        ValueError("out of memory"),
        OSError(errno.ENOSPC, "No space left on device"),
    ],
)
def test_other_errors_are_no_lack_of_memory(error: Exception) -> None:
    assert not is_out_of_memory(error)
    assert explained(error, RunFailed, lambda: "less") is error


SMALLER, MIXED = "a smaller data.batch_size", "trainer.precision=bf16-mixed"
MORE = "trainer.accumulate_grad_batches={} with the same batch and gradient"


@pytest.mark.parametrize(
    ("share", "accumulate", "precision", "evaluating", "expected"),
    [
        (
            128,
            1,
            "32-true",
            False,
            f"{SMALLER}, {MORE.format(2)}, or {MIXED}",
        ),
        (
            128,
            4,
            "64-true",
            False,
            f"{SMALLER}, {MORE.format(8)}, or {MIXED}",
        ),
        (
            128,
            1,
            "bf16-mixed",
            False,
            f"{SMALLER} or {MORE.format(2)}",
        ),
        (16, 1, "16-true", False, f"{SMALLER} or {MORE.format(2)}"),
        (4, 4, "32-true", False, MIXED),
        (4, 4, "bf16-true", False, "a smaller network or smaller images"),
        (128, 1, "32-true", True, f"a smaller data.eval_batch_size or {MIXED}"),
        (128, 1, "bf16-mixed", True, "a smaller data.eval_batch_size"),
    ],
)
def test_remedies_are_those_that_are_not_in_use(
    share: float, accumulate: int, precision: str, evaluating: bool, expected: str
) -> None:
    assert remedies(share, accumulate, precision, evaluating) == expected


TINY = ("model=lenet", "data=synthetic", "data.train_size=8", "data.test_size=4", "data.batch_size=4", "logger=none")


@pytest.mark.usefixtures("as_in_a_rank")
@pytest.mark.parametrize(
    ("member", "status", "remedy"),
    [
        ("to", USER_ERROR, f"{SMALLER}, {MORE.format(2)}, or {MIXED}"),
        ("training_step", FAILED, f"{SMALLER}, {MORE.format(2)}, or {MIXED}"),
        ("validation_step", FAILED, f"a smaller data.eval_batch_size or {MIXED}"),
        ("test_step", FAILED, f"a smaller data.eval_batch_size or {MIXED}"),
    ],
)
def test_run_reports_the_remedies_of_where_memory_ran_out(
    settings: Callable[..., dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    member: str,
    status: int,
    remedy: str,
) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError(GPU)

    monkeypatch.setattr(rank, "_log_to", lambda path, speak: None)
    monkeypatch.setattr(ImageClassifier, member, full)
    composed = settings(*TINY, "trainer=cpu", "trainer.max_epochs=1", "callbacks.pictures=null", "checkpoints=none")
    folder = tmp_path / "run"
    folder.mkdir()
    starting.prepare(folder, composed, continues=False)
    with StopRequests() as stop:
        assert ending.conclude(folder, rank.run_rank(folder, composed, None, stop)) == status
    line = f"out of memory: allocating 64.91 GiB failed on GPU 0 with 139.80 GiB; possible remedies: {remedy}"
    assert line in capsys.readouterr().err
    if status == FAILED:
        assert (result_file.read_result(folder / folders.RESULT) or {})["error"] == line
