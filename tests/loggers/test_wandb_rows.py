"""`evaluate rows=FOLDER wandb=true`: W&B's real client, with a server on this machine."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import wandb
from tests.small_run import TrainedRun
from wandb_server import ServedRun, Server

from alexnet_lab.commands.evaluate import evaluate
from alexnet_lab.errors import UserError
from alexnet_lab.loggers import wandb_rows

Evaluate = Callable[..., str]


@pytest.fixture
def run(trained_run: TrainedRun, tmp_path: Path) -> TrainedRun:
    """The small run, as if W&B had recorded it online as `me/alexnet/abc`."""
    copy = TrainedRun(tmp_path / "run")
    shutil.copytree(trained_run.folder, copy.folder)
    content = torch.load(copy.best, weights_only=True)
    content["config"]["logger"] = {"wandb": {"entity": "me", "project": "alexnet"}}
    torch.save(content, copy.best)
    (copy.folder / "wandb" / "run-1").mkdir(parents=True)
    (copy.folder / "wandb" / "run_id").write_text("abc\n")
    return copy


@pytest.fixture
def evaluated(
    composed: Callable[..., Any], run: TrainedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Evaluate:
    """The output of the command for the run's best checkpoint."""

    def evaluate_it(*overrides: str) -> str:
        given = (f"checkpoint={run.best}", f"rows={tmp_path}/rows", "wandb=true", "trainer=cpu", *overrides)
        evaluate(composed("evaluate", *given))
        output = capsys.readouterr()
        assert "wandb:" not in output.err
        return output.out

    return evaluate_it


def served(state: str = "finished") -> ServedRun:
    history = [{"_step": 7, "_runtime": 5, "val/top1": 0.4}]
    return ServedRun("abc", {"seed": 3}, {"test/top1": {"max": 0.5}}, history, state)


def test_rows_become_a_table_of_the_wandb_run(evaluated: Evaluate, server: Server, tmp_path: Path) -> None:
    server.runs = [served()]
    output = evaluated()
    assert output.splitlines()[-1] == f"written: {server.url}/me/alexnet/runs/abc"
    (table,) = server.tables.values()
    with (tmp_path / "rows" / "rows.csv").open(newline="") as file:
        columns, *rows = csv.reader(file)
    assert table["columns"] == columns
    assert [[str(cell) for cell in row] for row in table["data"]] == rows
    assert len(rows) == 100
    (logged,) = (row for row in server.history if "rows/test" in row)
    assert (logged["rows/test"]["nrows"], logged["_step"]) == (100, 8)
    assert server.exit_codes == [0]
    # The run keeps its configuration and its tags.
    assert all(json.loads(change["config"])["seed"]["value"] == 3 for change in server.changes if change["config"])
    assert server.changes[0]["tags"] == ["tag"]
    assert not list(tmp_path.glob("run/wandb/run-2*"))


def test_table_has_at_most_the_rows_that_wandb_takes(
    evaluated: Evaluate, server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(wandb_rows, "MOST_ROWS", 10)
    server.runs = [served("crashed")]
    assert "W&B: the table has the 10 images with the highest loss, of 128" in evaluated("split=val")
    (table,) = server.tables.values()
    with (tmp_path / "rows" / "rows.csv").open(newline="") as file:
        losses = sorted((float(row["loss"]) for row in csv.DictReader(file)), reverse=True)
    assert [row[6] for row in table["data"]] == losses[:10]
    assert server.exit_codes == [1]  # a run that failed does not become a finished one


def test_nothing_is_sent_for_an_offline_run(evaluated: Evaluate, server: Server, run: TrainedRun) -> None:
    (run.folder / "wandb" / "run-1").rename(run.folder / "wandb" / "offline-run-1")
    assert "W&B: the table of rows will not be sent (the run was recorded offline" in evaluated()
    assert (server.tables, server.changes) == ({}, [])


def test_nothing_is_sent_if_wandb_is_offline(
    evaluated: Evaluate, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert "W&B: the table of rows will not be sent (W&B's mode is offline)" in evaluated()
    assert (server.tables, server.changes) == ({}, [])


def test_server_that_refuses_the_table_is_reported_and_the_files_remain(
    evaluated: Evaluate, server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(**options: Any) -> None:
        raise wandb.errors.CommError("permission denied")

    server.runs = [served()]
    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(UserError, match=r"wandb=true: W&B did not take the table of rows \(permission denied"):
        evaluated()
    assert (tmp_path / "rows" / "rows.csv").exists()


def test_without_the_option_nothing_is_sent(evaluated: Evaluate, server: Server) -> None:
    server.runs = [served()]
    assert "W&B" not in evaluated("wandb=false")
    assert (server.tables, server.changes) == ({}, [])


@pytest.mark.parametrize(
    ("state", "line"),
    [
        ("running", "wandb=true: the W&B run me/alexnet/abc is still running"),
        (None, "wandb=true: the W&B run me/alexnet/abc cannot be read "),
    ],
)
def test_run_that_cannot_take_the_table_is_reported_before_the_evaluation(
    evaluated: Evaluate, server: Server, tmp_path: Path, state: str | None, line: str
) -> None:
    server.runs = [served(state)] if state else []
    with pytest.raises(UserError) as raised:
        evaluated()
    assert str(raised.value).startswith(line)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "rows").exists()


@pytest.mark.usefixtures("bare")
def test_missing_login_is_reported_before_the_evaluation(evaluated: Evaluate) -> None:
    with pytest.raises(UserError, match="wandb=true: not logged in to W&B; run `wandb login` first"):
        evaluated()


@pytest.mark.usefixtures("server")
def test_checkpoint_without_a_wandb_run_is_reported(evaluated: Evaluate, run: TrainedRun) -> None:
    shutil.rmtree(run.folder / "wandb")
    with pytest.raises(UserError, match=r"best\.ckpt is not in the folder of a run that W&B recorded"):
        evaluated()


@pytest.mark.parametrize("more", [["rows=null"], ["checkpoint=[a.ckpt,b.ckpt]"]])
def test_only_the_rows_of_one_checkpoint_can_be_sent(evaluated: Evaluate, more: list[str]) -> None:
    with pytest.raises(UserError, match="wandb=true adds the rows of one checkpoint to its W&B run"):
        evaluated(*more)
