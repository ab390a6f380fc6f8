"""Folders of any age and state, W&B's offline folders, and W&B's public API behind a double."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from tests.runs.recorded_runs import rows, settings, write_run

from alexnet_lab.errors import UserError
from alexnet_lab.launch import ownership
from alexnet_lab.report.wandb_server import read_project
from alexnet_lab.runs.folders import as_yaml, read_config
from alexnet_lab.runs.run import FIGURES, read_runs
from alexnet_lab.runs.wandb_records import run_of_wandb


def test_metrics_come_from_the_rows(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", recorded=rows(0.8))
    (run,) = read_runs([str(folder)])
    validated = [row["val/top1"] for row in rows(0.8) if "val/top1" in row]
    found = run.figures
    assert found["test/top1"] == 0.8
    assert found["best_val/top1"] == pytest.approx(max(validated))
    assert found["val/top1"] == pytest.approx(validated[-1])
    assert validated[-1] < max(validated)
    assert (found["epochs"], found["seconds"], found["parameters"], found["macs"]) == (3, 60.5, 61_706, 416_520)
    assert set(found) == {figure.key for figure in FIGURES}
    assert run.images("test") == 10_000


def test_recorded_metrics_are_used_if_there_are_no_rows(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", final={"test/top1": 0.7, "val/top1": 0.6}, best={"val/top1": 0.65})
    (folder / "metrics.csv").unlink()
    (run,) = read_runs([str(folder)])
    found = run.figures
    assert (found["test/top1"], found["val/top1"], found["best_val/top1"], found["epochs"]) == (0.7, 0.6, 0.65, 3)


def test_configuration_reads_back_as_it_was_written(tmp_path: Path) -> None:
    texts = [
        "1e-3",
        "1.5e3",
        ".5",
        "012",
        "0x1f",
        "1_000",
        "2026-11-26",
        "12:30:00",
        "yes",
        "null",
        "~",
        "",
        "é",
        "a: b",
    ]
    written = {"texts": texts, "numbers": [1e-5, 1e20, 1.5e3, 0.1, 3], "none": None, "here": "${folder}/x"}
    (tmp_path / "config.yaml").write_text(as_yaml(written))
    assert read_config(tmp_path) == written
    (tmp_path / "config.yaml").write_text("by_hand: [1e-3, 1.5e3, -2e4]\n")
    assert read_config(tmp_path) == {"by_hand": [0.001, 1500.0, -20000.0]}


def test_configuration_that_makes_objects_is_not_loaded(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a")
    (folder / "config.yaml").write_text(f"model: !!python/object/apply:os.mkdir ['{tmp_path / 'made'}']\n")
    with pytest.raises(UserError, match=r"config\.yaml is damaged: could not determine a constructor"):
        read_config(folder)
    read_runs([str(folder)])
    assert not (tmp_path / "made").exists()


def test_sweeps_lists_patterns_and_one_run_are_found_once_and_named_by_their_path(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "a")
    write_run(tmp_path / "multiruns" / "s" / "lr=0.1,seed=0")
    (tmp_path / "runs" / "a" / ".hydra").mkdir()
    (tmp_path / "runs" / "a" / ".hydra" / "config.yaml").write_text("{}")
    (tmp_path / "runs" / "a" / "wandb" / "run-1" / "files").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "wandb" / "run-1" / "files" / "config.yaml").write_text("{}")
    names = ["multiruns/s/lr=0.1,seed=0", "runs/a"]
    assert [run.name for run in read_runs([str(tmp_path)])] == names
    assert [run.name for run in read_runs([f"{tmp_path}/*/**"])] == names
    assert [run.name for run in read_runs([f"{tmp_path}/runs/a", f"{tmp_path}/runs", f"{tmp_path}/multiruns"])] == names
    assert [run.name for run in read_runs([f"{tmp_path}/runs/a"])] == ["a"]


def test_run_may_be_named_like_the_folders_of_wandb(tmp_path: Path) -> None:
    write_run(tmp_path / "run-1")
    online = tmp_path / "wandb" / "run-20260101_000000-abc" / "files"
    online.mkdir(parents=True)
    (online / "config.yaml").write_text("{}")
    assert [run.name for run in read_runs([str(tmp_path)])] == ["run-1"]


def test_unfinished_failed_old_and_damaged_runs_are_read(tmp_path: Path) -> None:
    for name in ("running", "killed"):
        (write_run(tmp_path / name) / "result.json").unlink()
    held = ownership.lock(tmp_path / "running")
    write_run(tmp_path / "failed", recorded=[], status="failed", error="the loss is not finite", final={}, best={})
    write_run(tmp_path / "stopped", status="interrupted")
    old = tmp_path / "old"
    old.mkdir()
    (old / "config.yaml").write_text("model: {}\n")
    (old / "result.json").write_text(json.dumps({"status": "finished", "final": {"test/top1": 0.5}, "images": None}))
    torn = write_run(tmp_path / "torn")
    whole = (torn / "metrics.csv").read_text()
    (torn / "metrics.csv").write_text(whole[: whole.rindex("0.8") + 2])
    damaged = write_run(tmp_path / "damaged")
    (damaged / "config.yaml").write_text("a: [")
    (damaged / "result.json").write_text('{"status": "fin')
    (damaged / "metrics.csv").write_text("epoch,step,val/top1\n0,1,high\n")
    empty = write_run(tmp_path / "without-rows")
    (empty / "metrics.csv").write_text("")

    with held:
        runs = {run.name: run for run in read_runs([str(tmp_path)])}
    states = {name: run.status for name, run in runs.items()}
    assert states == {
        "running": "unfinished",
        "killed": "failed",
        "failed": "failed",
        "stopped": "interrupted",
        "old": "finished",
        "torn": "finished",
        "damaged": "unfinished",
        "without-rows": "finished",
    }
    assert runs["failed"].error == "the loss is not finite"
    assert runs["killed"].error == "the process was killed (out of memory?)"
    assert runs["old"].figures == {"test/top1": 0.5}
    assert "test/top1" not in runs["torn"].figures
    assert runs["torn"].figures["epochs"] == 3
    assert [line.split(":")[0] for line in (runs["damaged"].error or "").splitlines()] == [
        "config.yaml is damaged",
        "result.json is damaged",
        "metrics.csv is damaged",
    ]


def test_overrides_shared_by_all_jobs_are_not_in_their_names(tmp_path: Path) -> None:
    for name in ("lr=1,model=lenet,seed=0", "lr=1,model=lenet,seed=1", "lr=1,model=caffenet,seed=0"):
        write_run(tmp_path / "sweep" / name)
    write_run(tmp_path / "alone,lr=1")
    assert {run.name for run in read_runs([str(tmp_path / "sweep")])} == {
        "model=lenet,seed=0",
        "model=lenet,seed=1",
        "model=caffenet,seed=0",
    }
    assert {run.name for run in read_runs([str(tmp_path)])} == {
        "alone,lr=1",
        "sweep/model=lenet,seed=0",
        "sweep/model=lenet,seed=1",
        "sweep/model=caffenet,seed=0",
    }


def test_nan_is_not_a_best_value(tmp_path: Path) -> None:
    recorded = [
        {"epoch": epoch, "step": epoch, "val/top1": top1} for epoch, top1 in enumerate((0.1, float("nan"), 0.3))
    ]
    (run,) = read_runs([str(write_run(tmp_path / "a", recorded=recorded))])
    assert (run.figures["best_val/top1"], run.figures["val/top1"], run.figures["epochs"]) == (0.3, 0.3, 3)


@pytest.mark.parametrize("place", ["nowhere", "no*match"])
def test_missing_folder_is_reported(tmp_path: Path, place: str) -> None:
    with pytest.raises(UserError, match="there is no such folder, and no folder matches it as a pattern"):
        read_runs([str(tmp_path / place)])


def test_folder_without_runs_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no run there; a run's folder has a config.yaml or a result.json"):
        read_runs([str(tmp_path)])


def test_offline_run_of_wandb_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    with wandb.init(
        project="p", name="mine", dir=tmp_path, mode="offline", settings=wandb.Settings(silent=True, console="off")
    ) as run:
        run.define_metric("val/top1", summary="max")
        run.config.update({**settings(seed=3, lr=0.25), "parameters": 61_706, "macs": 416_520})
        for epoch, top1 in enumerate((0.5, 0.75, 0.625)):
            step = 10 * epoch + 10
            run.log({"epoch": epoch, "trainer/global_step": step, "val/top1": top1, "val/loss": float("nan")})
        run.log({"epoch": 3, "trainer/global_step": 30, "test/top1": 0.5625})
    (found,) = read_runs([str(tmp_path)])
    assert found.name == f"mine ({run.id})"
    assert found.status == "finished"
    assert found.config["optimizer"]["lr"] == 0.25
    assert [(row["epoch"], row["step"], row["val/top1"]) for row in found.rows if "val/top1" in row] == [
        (0, 10, 0.5),
        (1, 20, 0.75),
        (2, 30, 0.625),
    ]
    known = found.figures
    assert (known["best_val/top1"], known["val/top1"], known["test/top1"]) == (0.75, 0.625, 0.5625)
    assert (known["epochs"], known["parameters"], known["macs"]) == (3, 61_706, 416_520)
    assert run_of_wandb("x", "y", "finished", {}, {"status": "pruned"}, []).status == "pruned"


def test_continued_offline_run_is_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    quiet = wandb.Settings(silent=True, console="off")
    for epochs in ((0, 1, 2), (1, 2, 3)):  # killed within epoch 2, continued from the end of epoch 0
        with wandb.init(id="abc", project="p", name="mine", dir=tmp_path, mode="offline", settings=quiet) as run:
            for epoch in epochs:
                top1 = 0.5 + 0.1 * epoch + 0.01 * epochs[0]
                run.log({"epoch": epoch, "trainer/global_step": 10 * epoch + 10, "val/top1": top1})
        time.sleep(1.1)  # the folders are named by the second
    assert len(list(tmp_path.glob("wandb/offline-run-*"))) == 2
    (found,) = read_runs([str(tmp_path)])
    assert found.name == "mine (abc)"
    assert [(row["step"], round(row["val/top1"], 2)) for row in found.rows] == [
        (10, 0.5),
        (20, 0.61),
        (30, 0.71),
        (40, 0.81),
    ]


def test_unreadable_offline_folder_is_a_failed_run(tmp_path: Path) -> None:
    (tmp_path / "offline-run-1").mkdir()
    (run,) = read_runs([str(tmp_path)])
    assert run.status == "failed"
    assert (run.error or "").startswith("wandb cannot read it: ")


class ServedRun:
    """The documented attributes of a run in `wandb.Api`."""

    def __init__(self, number: int, state: str) -> None:
        self.name, self.id, self.state, self.url = (
            f"run-{number}",
            f"id{number}",
            state,
            f"https://example.org/{number}",
        )
        self.config = {**settings(seed=number), "parameters": 61_706, "_wandb": {}}
        self.summary = {"val/top1": {"max": 0.75}, "_runtime": 12.5, "best_picture": {"_type": "image-file"}}

    def scan_history(self) -> list[dict[str, Any]]:
        return [
            {"_step": 0, "epoch": 0, "trainer/global_step": 10, "val/top1": 0.75, "val/loss": "NaN", "picture": {}},
            {"_step": 1, "epoch": 1, "trainer/global_step": 20, "val/top1": 0.5, "test/top1": None},
        ]


def serve(monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[Any]:
    import wandb

    asked: list[Any] = []

    class Api:
        def __init__(self, **settings: Any) -> None:
            pass

        def runs(self, path: str, filters: dict[str, Any] | None = None) -> Any:
            asked.append((path, filters))
            if isinstance(answer, Exception):
                raise answer
            return answer

    monkeypatch.setattr(wandb, "Api", Api)
    return asked


def test_runs_of_a_project_are_read_through_the_public_api(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = serve(monkeypatch, [ServedRun(0, "finished"), ServedRun(1, "crashed"), ServedRun(2, "running")])
    runs = read_project("me/alexnet", {"config.optimizer.lr": 0.1})
    assert asked == [("me/alexnet", {"config.optimizer.lr": 0.1})]
    assert [(run.name, run.status) for run in runs] == [
        ("run-0 (id0)", "finished"),
        ("run-1 (id1)", "failed"),
        ("run-2 (id2)", "unfinished"),
    ]
    assert runs[0].figures == {
        "val/top1": 0.5,
        "best_val/top1": 0.75,
        "epochs": 2,
        "seconds": 12.5,
        "parameters": 61_706,
    }
    assert runs[1].error == "W&B: the run crashed"
    assert "parameters" not in runs[0].config


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (ValueError("api_key not configured (no-tty). call wandb.login"), "not logged in; run `wandb login` first"),
        (ValueError("Could not find project me/alexnet"), "there is no such project, or this account has no"),
        (ConnectionError("Failed to establish a new connection"), "W&B does not answer"),
        ([], "the project has no run that matches"),
    ],
)
def test_unreadable_project_is_reported_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, answer: Any, line: str
) -> None:
    serve(monkeypatch, answer)
    with pytest.raises(UserError, match=f"wandb=me/alexnet: {line}"):
        read_project("me/alexnet", {"state": "finished"})
