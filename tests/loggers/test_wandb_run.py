"""A run of the real script with W&B, read back by W&B's own reader, and a run whose connections drop halfway."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from wandb_server import Server, inspect, records

from alexnet_lab.runs.folders import placed, read_config
from alexnet_lab.runs.metric_rows import read_rows

PICTURES = ("batch", "confusion", "curves", "filters", "neighbours", "predictions")
SMALL = (
    "experiment=d2l_lenet",
    "data=synthetic",
    "~data.validate_on",
    "data.channels=1",
    "data.stored_size=28",
    "data.batch_size=32",
    "data.train_size=320",
    "logger=wandb",
    "trainer=cpu",
    "trainer.max_epochs=2",
    "trainer.log_every_n_steps=5",
)


@pytest.fixture(scope="module")
def run(script: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an offline run of two epochs."""
    folder = tmp_path_factory.mktemp("wandb") / "run"
    ended = script.run(*SMALL, f"hydra.run.dir={folder}")
    assert ended.returncode == 0, ended.stderr
    assert "left out" not in ended.stderr
    return folder


@pytest.fixture(scope="module")
def offline(run: Path) -> Path:
    (folder,) = (run / "wandb").glob("offline-run-*")
    return folder


@pytest.fixture(scope="module")
def overview(offline: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(inspect(offline, "--summary"))
    return found


def test_history_in_wandb_equals_metrics_csv(run: Path, offline: Path) -> None:
    history = [record["item"] for record in records(offline, "history")]
    rows = read_rows(run / "metrics.csv")
    for name in ("val/top1", "val/top5", "train/top1", "test/top1", "lr", "train/grad_norm"):
        ours = [row[name] for row in rows if name in row]
        assert ours == [row[name] for row in history if name in row]
        assert ours
    assert [row["epoch"] for row in history if "val/top1" in row] == [0, 1]


def test_run_is_named_grouped_and_tagged_by_its_choices(offline: Path) -> None:
    found = records(offline, "run")[0]
    assert found["display_name"] == "lenet-synthetic-sgd-s0"
    assert (found["run_group"], found["job_type"]) == ("d2l_lenet", "train")
    assert found["tags"] == ["lenet", "synthetic", "d2l_lenet"]


def test_configuration_is_logged_nested(overview: dict[str, Any]) -> None:
    config = overview["config"]
    assert config["optimizer"]["lr"] == 0.9
    assert config["data"]["batch_size"] == 32
    assert config["recipe"]["published"]["test/top1"]["value"] == 0.803


def test_summary_contains_size_speed_and_time_to_best(run: Path, overview: dict[str, Any]) -> None:
    summary, result = overview["summary"], json.loads((run / "result.json").read_text())
    assert (summary["parameters"], summary["macs"]) == (61_706, 416_520)
    assert summary["images_per_second"] == pytest.approx(result["images_per_second"])
    assert 0 < summary["seconds_to_best"] == pytest.approx(result["seconds_to_best"])
    assert summary["val/top1"] == {"max": result["best"]["val/top1"]}
    assert summary["images"] == result["images"]


def test_every_picture_is_kept_for_a_later_upload(run: Path, offline: Path) -> None:
    history = [record["item"] for record in records(offline, "history")]
    for name in PICTURES:
        ((path,),) = [row[key] for row in history if (key := f"pictures/{name}.filenames") in row]
        assert (offline / "files" / path).read_bytes() == (run / "pictures" / f"{name}.png").read_bytes()


def test_recorded_configuration_contains_no_folder(run: Path) -> None:
    assert str(run) not in (run / "config.yaml").read_text()
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert str(run) not in yaml.safe_dump(checkpoint["config"])


def test_moved_run_with_a_recorded_absolute_folder_continues_its_offline_run(
    script: Any, run: Path, tmp_path: Path
) -> None:
    former, folder = tmp_path / "former", tmp_path / "moved"
    shutil.copytree(run, folder)
    config = placed(read_config(folder), former) | {"folder": str(former)}  # as older versions recorded it
    assert config["logger"]["wandb"]["folder"] == str(former)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    shutil.rmtree(folder / "pictures")
    ended = script.run(f"resume={folder}", "trainer.max_epochs=3")
    assert ended.returncode == 0, ended.stderr
    assert not former.exists()
    assert str(former) not in (folder / "config.yaml").read_text()
    names = [path.name.rpartition("-")[2] for path in (folder / "wandb").glob("offline-run-*")]
    assert names == [(folder / "wandb" / "run_id").read_text().strip()] * 2
    assert (folder / "pictures" / "filters.png").exists()


@pytest.mark.system
def test_training_ends_normally_when_connections_drop_halfway(script: Any, server: Server, tmp_path: Path) -> None:
    online = {"WANDB_MODE": "online", "WANDB_BASE_URL": server.url, "WANDB_API_KEY": "0123456789" * 4}
    folder = tmp_path / "run"
    process = script.start(*SMALL, "trainer.max_epochs=20", f"hydra.run.dir={folder}", env=script.environment | online)
    metrics = folder / "metrics.csv"
    script.wait(process, lambda: any("val/top1" in row for row in read_rows(metrics)), "a validation")
    server.manner = "drops"
    ended = script.finish(process)
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "wandb sync --include-online" in ended.stderr
    assert json.loads((folder / "result.json").read_text())["status"] == "finished"
    assert max(row["epoch"] for row in read_rows(metrics) if "val/top1" in row) == 19
