"""What a sweep says of its jobs."""

import io
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.core.utils import JobStatus
from rich.console import Console

from alexnet_lab.errors import RunFailed
from alexnet_lab.launch import sweep_view
from alexnet_lab.launch.planning import Plan
from alexnet_lab.launch.sweep_job import Job
from alexnet_lab.launch.sweep_view import View, figures, labels, look, progress, table, time_left
from alexnet_lab.runs.metric_rows import read_rows
from hydra_plugins.alexnet_lab_launcher.launcher import Ended

HEADER = "epoch,step,train/loss,val/top1\n"


def job(folder: Path, *overrides: str, **trainer: Any) -> Job:
    folder.mkdir()
    settings = {"trainer": {"max_steps": -1, "max_epochs": 10} | trainer}
    return Job(folder, overrides, Plan(folder, settings), gpus=0, state="running", started=time.monotonic() - 60)


def test_job_is_told_by_what_others_do_not_share(tmp_path: Path) -> None:
    jobs = [job(tmp_path / name, "data=synthetic", f"seed={name}") for name in "01"]
    assert labels(jobs) == ["seed=0", "seed=1"]
    assert labels(jobs[:1]) == ["data=synthetic seed=0"]
    assert labels([*jobs, job(tmp_path / "plain", "data=synthetic")])[2] == "plain"


@pytest.mark.parametrize(
    ("trainer", "rows", "before", "left"),
    [
        ({}, "0,50,,\n", 0, None),  # nobody knows yet how long an epoch is
        ({}, "0,100,1.0,\n1,150,,\n", 0, 60 * 850 / 150),
        ({}, "0,100,1.0,\n1,150,,\n", 50, 60 * 850 / 100),
        ({"max_steps": 300}, "0,100,,\n", 0, 120.0),
        ({"max_steps": 300}, "0,100,,\n", 100, None),
        ({"max_epochs": -1}, "0,100,1.0,\n", 0, None),
    ],
)
def test_time_left_follows_the_rate_since_the_jobs_start(
    trainer: dict[str, Any], rows: str, before: int, left: float | None, tmp_path: Path
) -> None:
    one = job(tmp_path / "one", **trainer)
    one.steps_before = before
    (one.folder / "metrics.csv").write_text(HEADER + rows)
    found = time_left(one, figures(read_rows(one.folder / "metrics.csv")), 60.0)
    assert found == (None if left is None else pytest.approx(left))


def test_table_has_a_row_per_job_with_its_best_figure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first, second = job(tmp_path / "seed=0", "seed=0"), job(tmp_path / "no_lrn,seed=1", "seed=1", "model.lrn=[x]")
    (first.folder / "metrics.csv").write_text(HEADER + "0,100,1.0,\n0,100,,0.75\n1,200,1.0,\n1,200,,0.5\n")
    second.state, second.ended = "failed", second.started + 3700
    monkeypatch.setattr(sweep_view, "time", SimpleNamespace(monotonic=lambda: first.started + 60))
    shown = io.StringIO()
    Console(width=120, file=shown).print(table(tmp_path, [first, second]))
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.getvalue().splitlines()]
    assert [line for line in lines if line] == [
        ["1", "seed=0", "running", "2", "0.7500", "1:00", "4:00"],
        ["no_lrn", "seed=1 model.lrn=[x]", "failed", "", "", "1:01:40", ""],
    ]


def test_test_after_the_last_epoch_is_no_further_epoch(tmp_path: Path) -> None:
    one = job(tmp_path / "one")
    (one.folder / "metrics.csv").write_text(
        "epoch,step,train/loss,val/top1,test/loss,test/top1\n0,20,1.0,,,\n0,20,,0.5,,\n1,20,,,2.0,0.25\n"
    )
    assert progress(one)[:2] == ("1", "0.5000")


def test_figures_are_read_again_only_when_they_changed_and_never_after_the_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    read = []

    def counted(path: Path) -> list[dict[str, float]]:
        read.append(path)
        return read_rows(path)

    monkeypatch.setattr(sweep_view, "read_rows", counted)
    one = job(tmp_path / "one")
    file = one.folder / "metrics.csv"
    assert look(one).epoch is None
    file.write_text(HEADER + "0,100,1.0,\n")
    assert [look(one).step, look(one).step] == [100, 100]
    assert len(read) == 1
    file.write_text(HEADER + "0,100,1.0,\n1,200,1.0,\n")
    one.state = "finished"
    assert [look(one).step, look(one).step] == [200, 200]
    file.unlink()
    assert look(one).step == 200
    assert len(read) == 2


def test_without_a_terminal_each_running_job_has_a_line_a_minute(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    now = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(sweep_view, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    first, second, third = (job(tmp_path / f"seed={seed}", f"seed={seed}") for seed in range(3))
    first.started = second.started = now.seconds
    second.state, third.state = "finished", "waiting"
    view = sweep_view.View(tmp_path, [first, second, third])
    for _ in range(2 * 60 * 16):  # looked at 16 times a second, which float64 adds up exactly, for two minutes
        now.seconds += 1 / 16
        view.show()
        if now.seconds - first.started > 90:
            (first.folder / "metrics.csv").write_text(HEADER + "0,100,1.0,\n0,100,,0.75\n")
    view.show()
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("[1/3]")]
    assert printed == [
        "[1/3] seed=0 running",
        "[1/3] seed=0  running for 1:00",
        "[1/3] seed=0  epoch 1  val/top1 0.7500  running for 2:00  18:00 left",
    ]


def test_end_of_a_sweep_counts_the_failed_and_prints_each_reason_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = [job(tmp_path / name, name) for name in ("a", "b", "c")]
    view = View(tmp_path, jobs)
    for one, state in zip(jobs, ("failed", "failed", "finished"), strict=True):
        one.state, one.reason = state, "no such data" if state == "failed" else ""
    view.close()
    printed = capsys.readouterr().out
    assert "1 of 3 jobs finished, 2 failed" in " ".join(printed.split())
    assert printed.count("no such data") == 1
    assert "a, b: no such data" in printed


def test_failed_job_of_a_sweep_raises_its_reason_without_a_line_of_hydras(capfd: pytest.CaptureFixture[str]) -> None:
    returned = Ended(overrides=["seed=1"], status=JobStatus.FAILED)
    returned.return_value = RunFailed("a failed: no such data")
    with pytest.raises(RunFailed, match="no such data"):
        _ = returned.return_value
    assert capfd.readouterr().err == ""
