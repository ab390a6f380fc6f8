"""Faults of every kind, after training has begun and before, in single runs, sweeps, resumed runs and on any rank.

After: everything is kept, `result.json` has the reason, the last line names the file and the command that continues.
Before: a user's error leaves nothing.
"""

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from alexnet_lab.data.sampler import EpochOrder
from alexnet_lab.data.store.prepare import prepare
from alexnet_lab.data.stream.writing import write_stream
from alexnet_lab.runs.metric_rows import read_rows
from alexnet_lab.runs.run import read_runs

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
    """The validated epochs."""
    return [row["epoch"] for row in read_rows(folder / "metrics.csv") if "val/top1" in row]


def fault(**arguments: Any) -> str:
    """The override that adds a callback of `faults.py` to a run."""
    name = arguments.pop("name")
    return (
        ",".join(
            [f"+callbacks.fault={{_target_:faults.{name}", *(f"{k}:{json.dumps(v)}" for k, v in arguments.items())]
        )
        + "}"
    )


def command_of(line: str) -> list[str]:
    """The arguments of the command in a run's last line, as parsed by a shell."""
    python, program, *arguments = shlex.split(line.partition(" with: ")[2])
    assert (Path(python).name, program) == ("python", "src/train.py")
    return arguments


def assert_kept(ended: subprocess.CompletedProcess, folder: Path, words: str, rank: int = 0) -> None:
    """Assert that the run failed on this rank with this reason and kept everything it had trained."""
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
    """Run the real script with `faults.py`."""
    paths = [str(Path(__file__).parent / "launch"), *filter(None, [os.environ.get("PYTHONPATH")])]
    # By default, LitData tries to download a chunk for two minutes.
    environment = script.environment | {"PYTHONPATH": os.pathsep.join(paths), "MAX_WAIT_TIME": "2"}
    return lambda *arguments, **more: script.run(*arguments, env=environment, **more)


def read_in_second_epoch_by(rank: int) -> str:
    """A training image that only this rank of two reads in the second epoch."""
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
def test_run_on_a_full_disk_prints_its_reason(train: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    ended = train(*SYNTHETIC, fault(name="FullDisk", most_bytes=1), f"hydra.run.dir={folder}")
    assert ended.returncode == 1
    assert f"{folder}/metrics.csv cannot be written: File too large" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert epochs(folder) == [0]
    assert (folder / "checkpoints/last.ckpt").exists()


@pytest.mark.system
def test_checkpoint_that_takes_longer_than_hang_timeout_does_not_end_the_run(train: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    slow = fault(name="SlowDisk", what="write", seconds=4, epoch=2)
    ended = train(*SYNTHETIC, slow, "hang_timeout=2", f"hydra.run.dir={folder}")
    assert ended.returncode == 0, ended.stderr
    assert torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["epoch"] == 2


@pytest.mark.system
def test_checkpoint_that_is_never_written_ends_the_run(train: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    stuck = fault(name="SlowDisk", what="flush", seconds=600, epoch=2)
    ended = train(*SYNTHETIC, stuck, "hang_timeout=2", f"hydra.run.dir={folder}")
    assert ended.returncode == 1
    assert "rank 0 finished no batch for 2 s (hang_timeout)" in result(folder)["error"]
    assert "checkpoint_io.py" in result(folder)["error"]
    assert torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["epoch"] == 1


@pytest.mark.system
@pytest.mark.parametrize("ranks", [(), TWO_RANKS])
def test_second_request_ends_a_run_that_waits_for_its_checkpoint(
    ranks: tuple[str, ...], script: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    stuck = fault(name="SlowDisk", what="flush", seconds=600, epoch=1)
    environment = script.environment | {"PYTHONPATH": str(Path(__file__).parent / "launch")}
    process = script.start(*SYNTHETIC, *ranks, stuck, f"hydra.run.dir={folder}", env=environment)
    checkpoints = folder / "checkpoints"
    script.wait(process, lambda: len(epochs(folder)) > 1 and [*checkpoints.glob("*.writing")], "the second epoch")
    process.send_signal(signal.SIGTERM)
    time.sleep(1.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    ended = script.finish(process, seconds=30)
    assert ended.returncode == 3, ended.stderr
    assert result(folder)["status"] == "interrupted"
    assert torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["epoch"] == 0


@pytest.mark.system
def test_store_with_a_damaged_record_is_reported(train: Any, images: Path, tmp_path: Path) -> None:
    store, folder = tmp_path / "store", tmp_path / "run"
    prepare(images, store, name="image_folder", format="jpeg", workers=1)
    records = store / "train" / "images.bin"
    faulty = fault(name="Loses", paths=[str(records)], how="are_zeroed")
    ended = train(*IMAGES, f"data.dir={store}", faulty, f"hydra.run.dir={folder}")
    assert_kept(ended, folder, f"{records}: image ")


@pytest.mark.system
def test_stream_with_lost_chunks_is_reported(train: Any, images: Path, tmp_path: Path) -> None:
    pytest.importorskip("litdata", reason="needs the extra: pip install -e '.[stream]'")
    stream, folder = tmp_path / "stream", tmp_path / "run"
    prepare(images, tmp_path / "store", name="image_folder", format="jpeg", workers=1)
    write_stream(tmp_path / "store", str(stream), "image_folder", chunk_images=1)
    chunks = [str(path) for path in (stream / "train").glob("chunk-*")]
    faulty = fault(name="Loses", paths=chunks, how="vanish")
    ended = train(*IMAGES, f"data.dir={stream}", faulty, f"hydra.run.dir={folder}")
    assert_kept(ended, folder, f"of {stream}/train cannot be read")


@pytest.mark.system
def test_stacks_of_a_native_crash_are_in_the_log_of_the_run(train: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    ended = train(*SYNTHETIC, fault(name="Fault", kind="crashes", rank=0, epoch=1), f"hydra.run.dir={folder}")
    assert ended.returncode == -signal.SIGSEGV
    log = (folder / "train.log").read_text()
    assert "Fatal Python error: Segmentation fault" in log
    assert "on_train_batch_end" in log
    assert not (folder / "result.json").exists()
    (run,) = read_runs([str(folder)])
    assert (run.status, run.error) == ("failed", "the process was killed (out of memory?)")


# Sweeps and resumed runs.


@pytest.mark.system
def test_jobs_of_a_sweep_are_kept_and_the_table_has_the_command_that_continues_each(
    train: Any, images: Path, tmp_path: Path
) -> None:
    path, conf, sweep = images / "train/dogs/1.jpg", tmp_path / "conf" / "sweep", tmp_path / "sweep"
    whole = path.read_bytes()
    jobs = {
        "raises": [fault(name="Fault", kind="raises", rank=0, epoch=1)],
        "killed": [fault(name="Fault", kind="is_killed", rank=0, epoch=1)],
        "full": [fault(name="FullDisk", most_bytes=100_000)],
        "refused": [fault(name="Refuses", rank=0)],
        "cut": [fault(name="Loses", paths=[str(path)], how="are_cut")],
    }
    words = {
        "raises": "ZeroDivisionError: on purpose",
        "killed": "the process was killed (out of memory?)",
        "full": "checkpoints/last.ckpt cannot be written: File too large",
        "cut": f"{path} cannot be read",
    }
    conf.mkdir(parents=True)
    content = {"defaults": [{"override /hydra/sweeper": "jobs"}], "hydra": {"sweeper": {"jobs": jobs}}}
    (conf / "faults.yaml").write_text("# @package _global_\n" + yaml.safe_dump(content, sort_keys=False))
    where = (f"data.dir={images}", f"hydra.sweep.dir={sweep}")
    ended = train("-m", "--config-dir", str(conf.parent), "sweep=faults", *IMAGES, *where)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    folders = {path.parent.name.split(",")[0]: path.parent for path in sweep.glob("*/job.log")}
    assert folders.keys() == jobs.keys()
    lines = ended.stdout.splitlines()
    hints = {name: [line for line in lines if " with: " in line and str(folders[name]) in line] for name in jobs}
    for name, reason in words.items():
        found, folder = result(folders[name]), folders[name]
        assert (found["status"], epochs(folder)[0]) == ("failed", 0)
        assert reason in found["error"]
        assert any(line.startswith(f"{folder.name}: ") and reason in line for line in lines)
        assert all((folder / file).exists() for file in ("checkpoints/last.ckpt", "checkpoints/best.ckpt"))
        assert (folder / "config.yaml").exists()
        assert command_of(hints[name][0]) == [f'resume="{folder}"']
    assert not hints["refused"]
    assert [path.name for path in folders["refused"].iterdir()] == ["job.log"]

    path.write_bytes(whole)
    ended = train(*command_of(hints["cut"][0]))
    assert ended.returncode == 0, ended.stderr
    assert result(folders["cut"])["status"] == "finished"
    assert epochs(folders["cut"]) == [0, 1, 2]


@pytest.mark.system
def test_resumed_run_keeps_its_checkpoints_and_not_its_old_result(train: Any, images: Path, tmp_path: Path) -> None:
    base, path = tmp_path / "base", images / "train/dogs/1.jpg"
    assert train(*IMAGES, f"data.dir={images}", f"hydra.run.dir={base}").returncode == 0
    kinds = {
        "raises": (fault(name="Fault", kind="raises", rank=0, epoch=4), "ZeroDivisionError: on purpose"),
        "vanish": (fault(name="Loses", paths=[str(path)], how="vanish", epoch=3), f"{path} cannot be read"),
    }
    for name, (faulty, words) in kinds.items():
        folder = tmp_path / name
        shutil.copytree(base, folder)
        ended = train(f"resume={folder}", "trainer.max_epochs=6", faulty)
        assert ended.returncode == 1, ended.stderr
        assert words in ended.stderr
        assert command_of(ended.stderr.splitlines()[-1]) == [f"resume={folder}"]
        assert result(folder)["status"] == "failed"
        assert words in result(folder)["error"]
        assert epochs(folder)[:4] == [0, 1, 2, 3]
        assert torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["epoch"] >= 3

    folder = tmp_path / "killed"
    shutil.copytree(base, folder)
    faulty = fault(name="Fault", kind="is_killed", rank=0, epoch=4)
    assert train(f"resume={folder}", "trainer.max_epochs=6", faulty).returncode == -signal.SIGKILL
    (run,) = read_runs([str(folder)])
    assert (run.status, run.error) == ("failed", "the process was killed (out of memory?)")
    assert epochs(folder) == [0, 1, 2, 3]

    files = [base / name for name in ("config.yaml", "result.json", "metrics.csv", "checkpoints/last.ckpt")]
    before = [file.read_bytes() for file in files]
    ended = train(f"resume={base}", "trainer.max_epochs=6", fault(name="Refuses", rank=0))
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1] == "error: rank 0 has no data"
    assert [file.read_bytes() for file in files] == before


@pytest.mark.system
def test_run_whose_processes_were_all_killed_is_reported_and_continued(script: Any, train: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    arguments = (*SYNTHETIC, f"hydra.run.dir={folder}")
    process = script.start(*arguments, "trainer.max_epochs=4000")
    script.wait(process, (folder / "checkpoints/last.ckpt").exists, "the first epoch")
    assert [run.status for run in read_runs([str(folder)])] == ["unfinished"]
    os.killpg(process.pid, signal.SIGKILL)
    script.finish(process)
    (run,) = read_runs([str(folder)])
    assert (run.status, run.error) == ("failed", "the process was killed (out of memory?)")
    ended = train(*arguments, "resume=auto", f"trainer.max_epochs={len(epochs(folder)) + 1}")
    assert ended.returncode == 0, ended.stderr
    assert "run run failed: the process was killed (out of memory?); continuing from " in ended.stderr


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


@pytest.mark.system
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("kind", "words"),
    [("raises", "ZeroDivisionError: on purpose"), ("is_killed", "was killed by SIGKILL (out of memory?)")],
)
def test_rank_that_fails_is_named_with_its_reason(kind: str, words: str, rank: int, train: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    faulty = fault(name="Fault", kind=kind, rank=rank, epoch=1)
    ended = train(*SYNTHETIC, *TWO_RANKS, faulty, f"hydra.run.dir={folder}")
    assert ended.returncode == 1
    found = result(folder)
    assert (found["status"], found["rank"]) == ("failed", rank)
    assert words in found["error"]
    assert words in ended.stderr
    assert command_of(ended.stderr.splitlines()[-1]) == [f"resume={folder}"]
    assert "Connection closed" not in ended.stderr
    assert (folder / "checkpoints/last.ckpt").exists()
    assert epochs(folder) == [0]


def by_torchrun(train: Any, *arguments: str) -> subprocess.CompletedProcess:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = ("-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={port}", "src/train.py")
    return train(*arguments, program=program)


@pytest.mark.system
@pytest.mark.parametrize("rank", [0, 1])
def test_ranks_of_torchrun_end_with_the_same_status(rank: int, train: Any, images: Path, tmp_path: Path) -> None:
    path, folder = images / read_in_second_epoch_by(rank), tmp_path / "run"
    faulty = fault(name="Loses", paths=[str(path)], how="vanish")
    ended = by_torchrun(train, *IMAGES, *TWO_RANKS, f"data.dir={images}", faulty, f"hydra.run.dir={folder}")
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("failed")]
    assert f"{path} cannot be read" in line
    assert command_of(line) == [f"resume={folder}"]
    assert (result(folder)["status"], result(folder)["rank"]) == ("failed", rank)
    assert f"{path} cannot be read" in result(folder)["error"]
    assert (folder / "checkpoints/last.ckpt").exists()

    folder = tmp_path / "refused"
    ended = by_torchrun(train, *SYNTHETIC, *TWO_RANKS, fault(name="Refuses", rank=rank), f"hydra.run.dir={folder}")
    lines = [line for line in ended.stderr.splitlines() if line.startswith("error")]
    assert lines == [f"error: rank {rank} has no data"]
    assert not folder.exists()

    folder = tmp_path / "killed"
    faulty = fault(name="Fault", kind="is_killed", rank=rank, epoch=1)
    ended = by_torchrun(train, *SYNTHETIC, *TWO_RANKS, faulty, f"hydra.run.dir={folder}")
    assert ended.returncode == 1
    assert (result(folder)["status"], result(folder)["rank"]) == ("failed", 1 - rank)
    assert "another rank ended without recording a reason; was it killed (out of memory?)" in result(folder)["error"]
    assert (folder / "checkpoints/last.ckpt").exists()
