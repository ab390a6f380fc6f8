"""Faults of every kind, after training has begun and before, in single runs, sweeps, resumed runs and on any rank.

After: everything is kept, `result.json` has the reason, the last line names the file and the command that continues.
Before: a user's error leaves nothing.
"""

import json
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from alexnet_lab.data.sampler import EpochOrder
from alexnet_lab.tracking.comparison.run_folders import read_runs
from alexnet_lab.tracking.metric_rows import read_rows

IMAGES = (
    *("model=lenet", "data=image_folder", "data.crop_size=224", "data.num_classes=2", "data.batch_size=2"),
    *("data.workers=1", "logger=none", "callbacks.pictures=null", "trainer=cpu", "trainer.max_epochs=3"),
)
SYNTHETIC = (
    *("model=lenet", "data=synthetic", "data.train_size=64", "data.val_size=16", "data.test_size=16"),
    *("data.batch_size=16", "logger=none", "callbacks.pictures=null", "trainer=cpu", "trainer.max_epochs=3"),
)
TRAIN = [f"{name}/{number}.jpg" for name in ("cats", "dogs") for number in range(4)]
TWO_RANKS = ("trainer=ddp_cpu", "hang_timeout=60")


def result(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return content


def epochs(folder: Path) -> list[float]:
    """The epochs that were validated."""
    return [row["epoch"] for row in read_rows(folder / "metrics.csv") if "val/top1" in row]


def fault(**arguments: Any) -> str:
    """The override that puts a callback of `faults.py` into a run."""
    name = arguments.pop("name")
    return (
        ",".join(
            [f"+callbacks.fault={{_target_:faults.{name}", *(f"{k}:{json.dumps(v)}" for k, v in arguments.items())]
        )
        + "}"
    )


def command_of(line: str) -> list[str]:
    """The arguments of the command in the last line of a run, as a shell and then `train.py` get them."""
    python, program, *arguments = shlex.split(line.partition(" with: ")[2])
    assert (Path(python).name, program) == ("python", "src/train.py")
    return arguments


def assert_kept(ended: subprocess.CompletedProcess, folder: Path, words: str, rank: int = 0) -> None:
    """The run failed with this reason, on this rank, and all that it had trained is there."""
    assert ended.returncode == 1, ended.stderr
    assert words in ended.stderr.splitlines()[-1]
    assert command_of(ended.stderr.splitlines()[-1])[0].startswith("resume=")
    found = result(folder)
    assert (found["status"], found["rank"]) == ("failed", rank)
    assert words in found["error"]
    for name in ("last.ckpt", "best.ckpt"):
        assert (folder / "checkpoints" / name).exists()
    assert found["checkpoints"].keys() == {"last", "best"}
    assert found["best"]["val/top1"] is not None
    assert epochs(folder)[0] == 0
    assert (folder / "config.yaml").exists()
    assert (folder / "train.log").exists()
    assert not list(folder.rglob("*.writing"))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of small photographs."""
    folder, random = tmp_path / "images", np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2), ("test", 2)):
        for name in ("cats", "dogs"):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 256, (32, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{number}.jpg")
    return folder


@pytest.fixture
def train(script: Any) -> Callable[..., subprocess.CompletedProcess]:
    """Run the real script, which knows `faults.py`."""
    environment = script.environment | {"PYTHONPATH": str(Path(__file__).parent / "commands")}
    return lambda *arguments, **more: script.run(*arguments, env=environment, **more)


def read_in_second_epoch_by(rank: int) -> str:
    """A training image that only this one of two ranks reads in the second epoch."""
    order = EpochOrder(len(TRAIN), seed=0, shuffled=True)
    order.set_epoch(1)
    return f"train/{TRAIN[order.order()[2 + rank]]}"


# One process.


def test_run_that_cannot_read_a_test_image_is_kept_and_finishes_with_the_printed_command(
    train: Any, images: Path, tmp_path: Path
) -> None:
    broken, folder = images / "test/dogs/1.jpg", tmp_path / "a run, of=mine"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:-60])
    quoted = f"hydra.run.dir='{folder}'"
    ended = train(*IMAGES, f"data.dir={images}", "logger=wandb", quoted)
    assert_kept(ended, folder, f"{broken} cannot be read")
    assert "Traceback" not in ended.stderr
    assert epochs(folder) == [0, 1, 2]
    assert list(folder.glob("wandb/offline-run-*/*.wandb"))
    (run,) = read_runs([str(folder)])
    assert (run.status, run.error) == ("failed", result(folder)["error"])

    broken.write_bytes(whole)
    assert train(*command_of(ended.stderr.splitlines()[-1])).returncode == 0
    assert result(folder)["status"] == "finished"
    assert epochs(folder) == [0, 1, 2]


@pytest.mark.system
@pytest.mark.parametrize(
    ("faulty", "words"),
    [
        ({"name": "FullDisk", "most_bytes": 100_000}, "checkpoints/last.ckpt cannot be written: File too large"),
        ({"name": "Fault", "kind": "raises", "rank": 0, "epoch": 1}, "ZeroDivisionError: on purpose"),
        ({"name": "Fault", "kind": "exits", "rank": 0, "epoch": 1}, "SystemExit: 0"),
    ],
)
def test_run_that_fails_in_its_second_epoch_is_kept(
    faulty: dict[str, Any], words: str, train: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    ended = train(*SYNTHETIC, fault(**faulty), f"hydra.run.dir={folder}")
    assert_kept(ended, folder, words)
    assert ("Traceback" in ended.stderr) == ("ZeroDivisionError" in words or "SystemExit" in words)


@pytest.mark.system
def test_run_that_can_write_nothing_at_all_prints_its_reason(train: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    ended = train(*SYNTHETIC, fault(name="FullDisk", most_bytes=1), f"hydra.run.dir={folder}")
    assert ended.returncode == 1
    assert f"{folder}/metrics.csv cannot be written: File too large" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert epochs(folder) == [0]
    assert (folder / "checkpoints/last.ckpt").exists()


@pytest.mark.system
def test_damaged_records_and_lost_chunks_are_named(train: Any, tmp_path: Path, images: Path, monkeypatch: Any) -> None:
    from alexnet_lab.data.store.prepare import prepare

    prepare(images, tmp_path / "store", name="image_folder", format="jpeg", workers=1)
    records = tmp_path / "store" / "train" / "images.bin"
    faulty = fault(name="Loses", paths=[str(records)], how="are_zeroed")
    ended = train(*IMAGES, f"data.dir={tmp_path}/store", faulty, f"hydra.run.dir={tmp_path}/damaged")
    assert_kept(ended, tmp_path / "damaged", f"{records}: image ")


# Several ranks.


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.system), 1])
def test_image_that_vanishes_fails_the_run_with_the_reason_of_the_rank_that_needed_it(
    rank: int, train: Any, images: Path, tmp_path: Path
) -> None:
    path = images / read_in_second_epoch_by(rank)
    faulty = fault(name="Loses", paths=[str(path)], how="vanish")
    folder = tmp_path / "run"
    ended = train(*IMAGES, *TWO_RANKS, f"data.dir={images}", faulty, f"hydra.run.dir={folder}")
    assert_kept(ended, folder, f"{path} cannot be read", rank)
    assert "Traceback" not in ended.stderr
    assert "gloo" not in ended.stderr


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.system), 1])
def test_users_error_of_one_rank_before_training_leaves_nothing(rank: int, train: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    ended = train(*SYNTHETIC, *TWO_RANKS, fault(name="Refuses", rank=rank), f"hydra.run.dir={folder}")
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1] == f"error: rank {rank} has no data"
    assert "Traceback" not in ended.stderr
    assert not folder.exists()
