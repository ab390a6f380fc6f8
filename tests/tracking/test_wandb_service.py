"""A command parts from W&B's process in bounded time, whatever that process does."""

import os
import signal
import time
from pathlib import Path

import pytest
import wandb

from alexnet_lab.tracking import wandb_service
from alexnet_lab.tracking.wandb_service import end_service, service


def processes() -> set[int]:
    """W&B's, of this process."""
    found = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            number, name, _, parent = status.read_text().split(maxsplit=4)[:4]
        except OSError:  # it has ended since it was listed
            continue
        if int(parent) == os.getpid() and name.startswith("(wandb"):
            found.add(int(number))
    return found


@pytest.mark.usefixtures("bare")
def test_a_process_that_hangs_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    others = processes()  # perhaps of tests before this one
    wandb.setup()
    (process,) = processes() - others
    os.kill(process, signal.SIGSTOP)
    monkeypatch.setattr(wandb_service, "END_SECONDS", 0.5)
    try:
        started = time.monotonic()
        end_service()
        assert 0.4 < time.monotonic() - started < 5
        assert process in processes()
    finally:
        os.kill(process, signal.SIGKILL)


@pytest.mark.usefixtures("bare")
def test_questions_end_their_process_and_a_run_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    others = processes()
    with service():
        wandb.setup()
        assert len(processes() - others) == 1
    assert processes() <= others
    with wandb.init(mode="offline", settings=wandb.Settings(silent=True)):
        with service():
            pass
        assert len(processes() - others) == 1
