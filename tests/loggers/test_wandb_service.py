"""A command ends W&B's process within limited time, even if that process hangs."""

import os
import signal
import time

import pytest
import wandb
from wandb_server import wandb_processes

from alexnet_lab.loggers import wandb_service
from alexnet_lab.loggers.wandb_service import end_service, service


@pytest.mark.usefixtures("bare")
def test_hanging_process_is_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    others = wandb_processes()  # possibly of earlier tests
    wandb.setup()
    (process,) = wandb_processes() - others
    os.kill(process, signal.SIGSTOP)
    monkeypatch.setattr(wandb_service, "END_SECONDS", 0.5)
    try:
        started = time.monotonic()
        end_service()
        assert 0.4 < time.monotonic() - started < 5
        assert process in wandb_processes()
    finally:
        os.kill(process, signal.SIGKILL)


@pytest.mark.usefixtures("bare")
def test_requests_end_their_process_and_a_run_keeps_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    others = wandb_processes()
    with service():
        wandb.setup()
        assert len(wandb_processes() - others) == 1
    assert wandb_processes() <= others
    with wandb.init(mode="offline", settings=wandb.Settings(silent=True)):
        with service():
            pass
        assert len(wandb_processes() - others) == 1
