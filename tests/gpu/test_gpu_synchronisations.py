"""Between logged steps, the host never waits for the device."""

import pytest
import torch
from tests.gpu.runs_on_device import PIPELINES, WATCHED, Runs


@pytest.mark.parametrize("recipe", PIPELINES)
def test_no_step_between_logged_steps_waits_for_the_device(runs: Runs, recipe: str, device: str) -> None:
    watched = runs[recipe].watched()
    assert watched["steps"] == WATCHED
    assert watched["control"] == (device == "cuda")
    assert watched["synchronisations"] == {}


def test_batch_normalisation_over_ranks_does_not_wait_for_the_device(only_on_gpu: None) -> None:
    from alexnet_lab.models.batch_norm import BatchNorm

    norm = BatchNorm(8).cuda()
    single = torch.randn(1, 8, 1, 1, device="cuda")  # a single value per channel takes the way of several ranks
    torch.cuda.set_sync_debug_mode("error")
    try:
        norm(single).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
