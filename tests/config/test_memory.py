"""Running out of memory is reported in one line with remedies."""

import pytest
import torch

from alexnet_lab.config.memory import TRAINING_REMEDIES, remedies_when_full
from alexnet_lab.errors import RunFailed, UserError

GPU = (
    "CUDA out of memory. Tried to allocate 64.91 GiB. GPU 0 has a total capacity of 139.80 GiB of which 60.83 GiB is "
    "free. Process 447 has 2.14 GiB memory in use."
)


def test_full_gpu_is_reported_in_one_line_with_three_remedies() -> None:
    with pytest.raises(RunFailed) as caught, remedies_when_full(RunFailed, TRAINING_REMEDIES.format(twice=2)):
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
