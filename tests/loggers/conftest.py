"""Shared by the tests of W&B."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from wandb_server import KEY, Server, bare_environment

from alexnet_lab.loggers.wandb_service import end_service


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    with bare_environment(tmp_path) as patch:
        yield patch


@pytest.fixture
def server(bare: pytest.MonkeyPatch) -> Iterator[Server]:
    """A reachable server and a login for it."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    bare.setenv("WANDB_BASE_URL", server.url)
    bare.setenv("WANDB_API_KEY", KEY)
    yield server
    end_service()
    server.closing.set()
    server.shutdown()
    server.server_close()
