"""Fixtures of several modules."""

import pytest

from alexnet_lab.runs import checkpoint_file


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accept files with tensors of stride 0, see `test_references.small_file`; others are refused, see
    `test_checkpoint`."""
    monkeypatch.setattr(checkpoint_file, "_is_complete", lambda tensor: True)
