"""How the entry point of all commands reports errors; runs in this process."""

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from alexnet_lab import places
from alexnet_lab.commands import entry
from alexnet_lab.errors import FAILED, USER_ERROR, RunFailed

needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="/proc exists on Linux only")


@pytest.fixture
def program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """The exit status and the lines of a command of train's options that does `work`; the project is a copy."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def run(*arguments: str, work: Callable[[DictConfig], Any] = lambda config: None) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        with pytest.raises(SystemExit) as end:
            entry.command("train")(work)()
        return int(end.value.code or 0), capfd.readouterr().err

    environment, here = dict(os.environ), os.getcwd()
    yield run
    HydraConfig.instance().cfg = None
    os.chdir(here)
    os.environ.clear()
    os.environ.update(environment)


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        pytest.param("hydra.run.dir=/proc/x", "/proc/x cannot be written: No such file or directory", marks=needs_proc),
        ("hydra.run.dir=file", "file cannot be written: not a folder"),
        ("hydra.run.dir=file/x", "file/x cannot be written: not a folder"),
        ("hydra.run.dir=/dev/null", "/dev/null cannot be written: not a folder"),
        ("hydra.run.dir=", "hydra.run.dir=: the path is empty; name a file or a folder"),
        ("model=[1,2]", "model=[1,2]: model takes a name"),
        ("trainer=[]", "trainer=[]: choose one trainer; --help lists the names"),
    ],
)
def test_wrong_argument_is_one_or_two_lines(
    program: Callable[..., tuple[int, str]], tmp_path: Path, argument: str, line: str
) -> None:
    (tmp_path / "file").touch()
    elsewhere = [] if argument.startswith("hydra") else [f"hydra.run.dir={tmp_path}/run"]
    status, printed = program(argument, *elsewhere)
    assert (status, printed.splitlines()[0].replace(f"{tmp_path}/", "")) == (USER_ERROR, f"error: {line}")
    assert len(printed.splitlines()) <= 2
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@needs_proc
def test_home_that_cannot_be_written_is_reported_with_the_remedy(
    program: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(places.HOME, "/proc")
    status, printed = program("model=lenet")
    assert status == USER_ERROR
    assert printed.splitlines() == [
        "error: /proc/logs cannot be written: No such file or directory",
        "to put all logs and data elsewhere: ALEXNET_LAB_HOME=FOLDER",
    ]


def test_refused_key_leaves_no_folder(program: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    status, printed = program("+foo=1", f"hydra.run.dir={tmp_path}/run")
    assert (status, printed.splitlines()[0]) == (USER_ERROR, "error: there is no option 'foo'")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("number", "status"), [(errno.EROFS, USER_ERROR), (errno.ENOTDIR, USER_ERROR), (errno.ENOSPC, FAILED)]
)
def test_folder_that_cannot_be_written_is_reported_in_one_line(
    program: Callable[..., tuple[int, str]], tmp_path: Path, number: int, status: int
) -> None:
    def work(config: DictConfig) -> NoReturn:
        raise OSError(number, os.strerror(number), "/somewhere/x")

    ended, printed = program(f"hydra.run.dir={tmp_path}/run", work=work)
    assert ended == status
    assert len(printed.splitlines()) == 1
    assert printed.startswith("error: /somewhere/x cannot be written: ")


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"config.yaml": ""}, "failed: the process was killed (out of memory?)"),
        ({"config.yaml": "", "result.json": '{"status": "failed", "error": "no loss"}'}, "failed: no loss"),
        ({}, "failed: exit status 1; see its output for the reason"),
    ],
)
def test_job_of_another_launcher_reports_how_its_run_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], reason: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    about = SimpleNamespace(runtime=SimpleNamespace(output_dir=str(tmp_path), cwd=str(tmp_path)))
    monkeypatch.setattr(entry.HydraConfig, "get", lambda: about)
    monkeypatch.setattr(os, "chdir", lambda folder: None)
    with pytest.raises(RunFailed) as raised:
        entry._run_elsewhere(lambda config: sys.exit(FAILED), DictConfig({}), "train")
    assert str(raised.value) == f"{tmp_path.name} {reason}"
