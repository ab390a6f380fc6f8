"""Shared by the tests: configurations composed in this process, and the real script in a separate process."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from tests import warm
from tests.small_run import composed_command, trained_run  # noqa: F401 - fixtures

from alexnet_lab import command_line, places
from alexnet_lab.commands.entry import register_resolvers
from alexnet_lab.config import arguments
from alexnet_lab.launch import slurm
from alexnet_lab.runs.folders import portable

# Tests run in parallel; several threads that wait for each other on a busy machine take many times as long. Torch
# reads this when it is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop(places.HOME, None)  # the developer's own

ROOT = Path(__file__).parents[1]
STARTED_BY_OTHERS = ("RANK", "LOCAL_", "NODE_", "GROUP_", "WORLD_SIZE", "MASTER_", "TORCHELASTIC_", "SLURM_", "PL_")


# Each composition copies this store, which holds the settings of all plugins. Nothing changes the copy, so one store
# serves all compositions; `commands/entry.py` does the same for a program.
ConfigStore.__deepcopy__ = lambda store, memo: store  # type: ignore[attr-defined]

# Programs that a shell starts in the background ignore these, and so would all that the tests start and send them to.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


class Script:
    """`python src/train.py ARGUMENTS` in a session of its own, one thread per process.

    It is a fork of a process that has imported torch and Lightning, as are its ranks and the jobs of its sweeps: that
    saves five seconds for each (see `warm`). `fresh=True` starts an interpreter, for tests of what happens before or
    while the libraries are imported.
    """

    def __init__(self, home: Path) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(STARTED_BY_OTHERS)}
        self.environment = kept | {"OMP_NUM_THREADS": "1", "HOME": str(home), "WANDB_MODE": "offline"}
        self._server: warm.Server | None = None

    def start(
        self, *arguments: str, program: tuple[str, ...] = ("src/train.py",), fresh: bool = False, **more: Any
    ) -> subprocess.Popen:
        command = [sys.executable, *program, *arguments]
        settings = {"cwd": ROOT, "env": self.environment, "text": True, "start_new_session": True}
        settings |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | more
        with contextlib.nullcontext() if fresh or "preexec_fn" in more else self._forking():
            return subprocess.Popen(command, **settings)

    def _forking(self) -> contextlib.AbstractContextManager[None]:
        if sys.platform != "linux":
            return contextlib.nullcontext()
        self._server = self._server or warm.Server(self.environment)
        return self._server.forking()

    def close(self) -> None:
        if self._server:
            self._server.close()

    def run(self, *arguments: str, **more: Any) -> subprocess.CompletedProcess:
        return self.finish(self.start(*arguments, **more))

    def finish(self, process: subprocess.Popen, seconds: float = 300) -> subprocess.CompletedProcess:
        """Wait for the process; if it does not end, kill it with all its ranks."""
        try:
            output, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, errors = process.communicate()
            raise AssertionError(f"did not end within {seconds} s:\n{output}\n{errors}") from None
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    def wait(self, process: subprocess.Popen, condition: Callable[[], Any], what: str, seconds: float = 300) -> None:
        """Wait until `condition` holds, checked every 2 ms, while `process` runs."""
        deadline = time.monotonic() + seconds
        while not condition():
            if process.poll() is not None or time.monotonic() > deadline:
                ended = self.finish(process, seconds=0.1)
                raise AssertionError(f"ended with {ended.returncode} before {what}:\n{ended.stdout}\n{ended.stderr}")
            time.sleep(0.002)


@pytest.fixture(autouse=True)
def _no_caller() -> Iterator[None]:
    """Forget the user's folder and command line, which a command run in this process records, and Slurm's facts."""
    slurm.here.cache_clear()
    yield
    slurm.here.cache_clear()
    for name in (command_line.HEAD, command_line.CALLER, places.HOME):
        os.environ.pop(name, None)
    arguments.given.clear()


@pytest.fixture(scope="session")
def script(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Script]:
    one = Script(tmp_path_factory.mktemp("home"))
    yield one
    one.close()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project with its virtual environment and data, for commands that write to the project."""
    folder = tmp_path / "project"
    for name in ("src", "conf", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Makefile", "make_venv.sh", "pyproject.toml", "requirements.lock"):
        shutil.copy2(ROOT / name, folder)
    for name in (".venv", "data"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@cache
def composed(overrides: tuple[str, ...]) -> DictConfig:
    """The composed, unresolved configuration; cached, because composing takes about 80 ms."""
    register_resolvers()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("train", ["run=test", *overrides])


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """The resolved configuration for a rank; the run's folder is `tmp_path`."""

    def resolved(*overrides: str) -> dict[str, Any]:
        config = composed(overrides)
        config.folder, config.overrides = str(tmp_path), list(overrides)
        container = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        assert isinstance(container, dict)
        return portable({str(key): value for key, value in container.items() if key != "folder"}, str(tmp_path))

    return resolved


@pytest.fixture
def as_in_a_rank() -> Iterator[None]:
    """Undo what a run in this process leaves behind: seeds in the environment, a process group."""
    environment = dict(os.environ)
    import torch

    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    os.environ.clear()
    os.environ.update(environment)


@pytest.fixture
def refusal(
    as_in_a_rank: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[dict[str, Any]], str]:
    """The output of a run in this process that is refused before training and leaves no files."""
    from alexnet_lab.errors import USER_ERROR
    from alexnet_lab.launch import ending, rank, starting
    from alexnet_lab.launch.stopping import StopRequests

    monkeypatch.setattr(rank, "_log_to", lambda path, speak: None)

    def refused(settings: dict[str, Any]) -> str:
        folder = tmp_path / "run"
        folder.mkdir()
        starting.prepare(folder, settings, continues=False)
        with StopRequests() as stop:
            assert ending.conclude(folder, rank.run_rank(folder, settings, None, stop)) == USER_ERROR
        assert not folder.exists()
        return capsys.readouterr().err

    return refused
