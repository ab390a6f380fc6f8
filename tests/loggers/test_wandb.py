"""W&B with its real client: offline, and with a server on this machine that answers, refuses or stops answering."""

import contextlib
import json
import logging
import os
import pty
import re
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.utilities import rank_zero_only
from wandb_server import WANDB, Server, bare_environment, inspect, records, wandb_processes

from alexnet_lab import revision
from alexnet_lab.errors import UserError
from alexnet_lab.loggers import wandb as wandb_logger_module
from alexnet_lab.loggers.wandb import WandbRun, wandb_logger
from alexnet_lab.loggers.wandb_service import end_service

Said = Callable[[], list[str]]
SOURCE = str(Path(wandb_logger_module.__file__).parents[2])
TOP1 = [0.1, 0.5, 0.3]
CONFIG = {"model": {"_target_": "some.net", "dropout": 0.5}, "git": {"commit": "abc"}, "parameters": 61, "macs": 714}


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Said:
    """The lines logged by this project so far, without wandb's."""
    caplog.set_level(logging.INFO)
    return lambda: [record.getMessage() for record in caplog.records if record.name == wandb_logger_module.__name__]


def train(logger: WandbRun, first_epoch: int = 0) -> None:
    for epoch, top1 in enumerate(TOP1, first_epoch):
        logger.log_metrics({"train/loss_step": 2.0 - epoch, "lr": 0.1, "epoch": epoch}, step=10 * epoch)
        figures = {"val/top1": top1, "val/top5": top1 + 0.2, "val/loss": 1 - top1, "epoch": epoch}
        logger.log_metrics(figures, step=10 * epoch + 9)


def run_sync(command: str | None) -> None:
    assert command is not None
    program, *arguments = shlex.split(command)
    assert program == "wandb"
    subprocess.run([str(WANDB), *arguments], check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Path]]:
    """The folders of an offline run of three epochs that failed, and of its continuation that finished."""
    home = tmp_path_factory.mktemp("offline")
    with bare_environment(home, WANDB_RUN_ID="foreign", WANDB_MODE="offline"):
        first = wandb_logger("run", name="first", group="a group", tags=["tag"])
        first.log_hyperparams(CONFIG)
        train(first)
        first.finish(exit_code=1)
        second = wandb_logger("run")
        second.log_metrics({"val/top1": 0.2, "epoch": 3}, step=39)
        second.finish(best={"val/top1": 0.5, "val/loss": 0.5, "images_per_second": 7.0})
        folders = sorted((home / "run" / "wandb").glob("offline-run-*"))
        assert second.sync_command == f"wandb sync {' '.join(str(path.relative_to(home)) for path in folders)}"
        yield folders


def test_offline_history_has_every_logged_metric(sessions: list[Path]) -> None:
    history = [record["item"] for record in records(sessions[0], "history")]
    assert [row["val/top1"] for row in history if "val/top1" in row] == TOP1
    assert [row["val/top5"] for row in history if "val/top5" in row] == [top1 + 0.2 for top1 in TOP1]
    assert [row["trainer/global_step"] for row in history] == [0, 9, 10, 19, 20, 29]
    assert [row["epoch"] for row in history] == [0, 0, 1, 1, 2, 2]


def test_summaries_keep_the_best_metrics_and_the_config_stays_nested(sessions: list[Path]) -> None:
    overview = json.loads(inspect(sessions[0], "--summary"))
    assert overview["config"] == CONFIG
    assert overview["summary"]["val/top1"] == {"max": 0.5}
    assert overview["summary"]["val/top5"] == {"max": 0.7}
    assert overview["summary"]["val/loss"] == {"min": 0.5}
    assert overview["summary"]["train/loss_step"] == 0.0
    assert (overview["state"], overview["exit_code"], overview["tags"]) == ("failed", 1, ["tag"])


def test_epoch_metrics_are_plotted_over_epochs_and_step_metrics_over_steps(sessions: list[Path]) -> None:
    axes = {
        metric.get("name") or metric["glob_name"]: metric.get("step_metric")
        for metric in records(sessions[0], "metric")
    }
    assert axes["val/top1"] == axes["train/loss"] == axes["test/top5"] == "epoch"
    assert axes["*"] == "trainer/global_step"


def test_a_continued_run_is_the_same_wandb_run_and_keeps_its_best(sessions: list[Path]) -> None:
    first, second = (records(folder, "run")[0] for folder in sessions)
    assert first["run_id"] == second["run_id"] != "foreign"
    assert second["resume"]
    assert first.get("git", {}).get("commit") == (revision.revision() or {}).get("commit")
    overview = json.loads(inspect(sessions[1], "--summary"))
    assert overview["summary"]["val/top1"] == {"max": 0.5}
    assert overview["summary"]["val/loss"] == {"min": 0.5}
    assert "images_per_second" not in overview["summary"]
    assert overview["exit_code"] == 0


def test_online_run_is_uploaded_with_its_exit_code(server: Server, said: Said) -> None:
    logger = wandb_logger("run")
    train(logger)
    logger.finish(exit_code=1)
    assert [row["val/top1"] for row in server.history if "val/top1" in row] == TOP1
    assert server.exit_codes == [1]
    assert server.run_names == {Path("run/wandb/run_id").read_text().strip()}
    assert logger.sync_command is None
    (line,) = said()
    assert line.startswith(f"W&B: {server.url}/entity/project/runs/")


@pytest.mark.parametrize("manner", ["silent", "drops"])
def test_run_that_loses_the_server_ends_in_time_and_can_be_uploaded_completely(
    manner: str, server: Server, bare: pytest.MonkeyPatch, said: Said
) -> None:
    bare.setattr(wandb_logger_module, "FINISH_SECONDS", 2.0)
    logger = wandb_logger("run")
    assert not logger.experiment.offline
    server.manner = manner
    train(logger)
    start = time.monotonic()
    logger.finish()
    assert time.monotonic() - start < 10
    folder = next(Path("run/wandb").glob("run-*"))
    assert logger.sync_command == f"wandb sync --include-online {folder}"
    assert said()[1:] == [
        "W&B: the upload did not finish in 2 s; the run is kept in run",
        f"W&B: upload the run with `{logger.sync_command}`",
    ]

    end_service()
    server.manner = "answers"
    server.history.clear()
    run_sync(logger.sync_command)
    assert [row["val/top1"] for row in server.history if "val/top1" in row] == TOP1


def test_training_continues_when_wandbs_own_process_dies(bare: pytest.MonkeyPatch, said: Said) -> None:
    bare.setenv("WANDB_MODE", "offline")
    others = wandb_processes()  # possibly of earlier tests
    logger = wandb_logger("run")
    train(logger)
    (core,) = wandb_processes() - others
    os.kill(core, signal.SIGKILL)
    time.sleep(0.3)
    train(logger, first_epoch=3)
    logger.log_hyperparams(CONFIG)
    (line,) = said()
    assert line.startswith("W&B: logging stopped, training continues (")
    logger.finish()
    assert said()[1].startswith("W&B: the end of the run was not recorded (")


@pytest.mark.parametrize("manner", ["closed", "silent"])
def test_unreachable_server_means_offline_within_30_seconds(
    manner: str, server: Server, bare: pytest.MonkeyPatch, said: Said
) -> None:
    if manner == "closed":
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            bare.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{free.getsockname()[1]}")
    server.manner = "silent"
    given = wandb_logger_module.START_SECONDS
    bare.setattr(wandb_logger_module, "START_SECONDS", 1.0)
    start = time.monotonic()
    logger = wandb_logger("run")
    assert logger.experiment.offline
    assert time.monotonic() - start + given - 1.0 < 30
    (line,) = said()
    assert re.fullmatch(r"W&B: the server did not accept the run \(.+\); recording offline", line)
    logger.finish()
    assert re.fullmatch(r"wandb sync run/wandb/offline-run-\S+", logger.sync_command or "")
    assert not list(Path("run/wandb").glob("run-*"))


def test_refusing_server_means_offline_unless_online_is_required(server: Server) -> None:
    server.manner = "refuses"
    with pytest.raises(UserError, match=r"403.*logger\.wandb\.mode=auto would record offline"):
        _ = wandb_logger("run", mode="online").experiment
    logger = wandb_logger("run")
    assert logger.experiment.offline
    train(logger)
    logger.finish()
    server.manner = "answers"
    end_service()
    run_sync(logger.sync_command)
    assert [row["val/top1"] for row in server.history if "val/top1" in row] == TOP1
    assert logger.sync_command is None


def test_unusable_key_means_offline(bare: pytest.MonkeyPatch, said: Said) -> None:
    bare.setenv("WANDB_API_KEY", "short")
    logger = wandb_logger("run")
    assert logger.experiment.offline
    assert "WANDB_API_KEY invalid" in said()[0]
    logger.finish()


def test_requiring_online_without_a_login_is_an_error(bare: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="not logged in"):
        _ = wandb_logger("run", mode="online").experiment


def test_name_rejected_by_wandb_is_a_user_error(bare: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="project"):
        _ = wandb_logger("run", project="a/b", mode="offline").experiment


def test_disabled_by_the_environment_records_nothing(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bare.setenv("WANDB_MODE", "disabled")
    logger = wandb_logger("run")
    logger.log_hyperparams(CONFIG)
    train(logger)
    logger.finish()
    assert logger.sync_command is None
    assert not list((tmp_path / "run").glob("**/*.wandb"))


def test_other_ranks_start_nothing(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bare.setattr(rank_zero_only, "rank", 1)
    logger = wandb_logger("run")
    logger.log_hyperparams(CONFIG)
    train(logger)
    logger.finish()
    assert logger.sync_command is None
    assert not (tmp_path / "run").exists()


def start(script: Any, program: str, **streams: int) -> subprocess.Popen:
    """Run `program` in a separate process after creating a run `r`, in a minimal environment."""
    begin = "from alexnet_lab.loggers.wandb import wandb_logger\nr = wandb_logger('run')\n"
    Path("program.py").write_text(begin + program)
    environment = os.environ | {"PYTHONPATH": SOURCE}
    process: subprocess.Popen = script.start(program=("program.py",), cwd=Path.cwd(), env=environment, **streams)
    return process


@pytest.mark.usefixtures("bare")
def test_killed_process_loses_no_metrics_older_than_two_seconds(script: Any) -> None:
    log = "r.log_metrics({'val/top1': 0.5, 'epoch': 0}, step=9)"
    process = start(script, f"import os, time\n{log}\ntime.sleep(2)\nos.kill(os.getpid(), 9)")
    assert script.finish(process).returncode == -signal.SIGKILL
    (record,) = records(next(Path("run/wandb").glob("offline-run-*")), "history")
    assert record["item"]["val/top1"] == 0.5


@pytest.mark.usefixtures("bare")
def test_without_a_login_the_terminal_gets_no_prompt(script: Any) -> None:
    controller, terminal = pty.openpty()
    try:
        log = "r.log_metrics({'a': 1})\nr.finish()"
        process = start(script, log, stdin=terminal, stdout=terminal, stderr=terminal)
        assert process.wait(timeout=60) == 0
        os.close(terminal)
        output = b""
        with contextlib.suppress(OSError):  # the terminal's end
            while part := os.read(controller, 4096):
                output += part
    finally:
        os.close(controller)
    assert list(Path("run/wandb").glob("offline-run-*"))
    assert b"wandb:" not in output
    assert b"hoice" not in output
