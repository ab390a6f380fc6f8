"""Memory that runs out ends in one line that says what helps."""

import pytest
import torch

from alexnet_lab.config.memory import TRAINING_REMEDIES, remedies_when_full
from alexnet_lab.errors import RunFailed, UserError

GPU = (
    "CUDA out of memory. Tried to allocate 64.91 GiB. GPU 0 has a total capacity of 139.80 GiB of which 60.83 GiB is "
    "free. Process 447 has 2.14 GiB memory in use."
)


def test_full_gpu_is_one_line_with_three_remedies() -> None:
    with pytest.raises(RunFailed) as caught, remedies_when_full(RunFailed, TRAINING_REMEDIES.format(twice=2)):
        raise torch.OutOfMemoryError(GPU)
    assert str(caught.value) == (
        "out of memory: 64.91 GiB more were asked for on GPU 0 of 139.80 GiB; what helps: a smaller data.batch_size, "
        "trainer.accumulate_grad_batches=2 with the same batch and gradient, or trainer.precision=bf16-mixed"
    )


def test_full_host_is_one_line() -> None:
    with (
        pytest.raises(UserError, match=r"^out of memory: [\d.]+ GiB more .* on the host; .* a smaller batch_size$"),
        remedies_when_full(UserError, "a smaller batch_size"),
    ):
        torch.empty(2**48, dtype=torch.uint8)


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match=r"^another$"), remedies_when_full(UserError, ""):
        raise RuntimeError("another")
