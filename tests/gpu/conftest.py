"""Tests that need a GPU (make test-gpu). Without one they are skipped.

ALEXNET_LAB_GPU_TESTS=cpu runs their logic on the CPU, with small sizes; what only a GPU can show is then skipped.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.gpu.runs_on_device import Runs

HERE = Path(__file__).parent
ON_CPU = os.environ.get("ALEXNET_LAB_GPU_TESTS") == "cpu"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(scope="session")
def device() -> str:
    """cuda, or cpu for the logic alone."""
    if ON_CPU:
        return "cpu"
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a GPU that torch can use; ALEXNET_LAB_GPU_TESTS=cpu runs the logic on the CPU")
    return "cuda"


@pytest.fixture(scope="session", autouse=True)
def runs(device: str, script: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """All runs, which start at once, also for the tests that do not look at them: they fill the time of the others."""
    started = Runs(script, tmp_path_factory.mktemp("runs"), on_cpu=device == "cpu")
    yield started
    started.close()


@pytest.fixture
def only_on_gpu(device: str) -> None:
    if device == "cpu":
        pytest.skip("only a GPU can show this")
