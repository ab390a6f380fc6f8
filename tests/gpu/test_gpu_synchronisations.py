"""Between logged steps, the host never waits for the device."""

import pytest
from tests.gpu.runs_on_device import PIPELINES, WATCHED, Runs


@pytest.mark.parametrize("recipe", PIPELINES)
def test_no_step_between_logged_steps_waits_for_the_device(runs: Runs, recipe: str, device: str) -> None:
    watched = runs[recipe].watched()
    assert watched["steps"] == WATCHED
    assert watched["control"] == (device == "cuda")
    assert watched["synchronisations"] == {}
