"""Runs in two-tower mode with the real script: the same metrics and checkpoints as a single process."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from alexnet_lab.runs.metric_rows import read_rows

EXACT = "trainer.precision=64-true"  # sums of nearly cancelling terms keep enough digits for a comparison
# An odd number of classes, and an incomplete last batch in each epoch and split.
SMALL = (
    "model=alexnet_original",
    "model.image_size=67",
    "model.dropout=0",
    "data=synthetic",
    "data.num_classes=5",
    "data.train_size=19",
    "data.batch_size=4",
    "data.val_size=13",
    "data.test_size=7",
    "data.eval_batch_size=4",
    "optimizer.lr=0.0003",
    EXACT,
    "trainer.gradient_clip_val=2.0",
    "trainer.log_every_n_steps=1",
    "logger=none",
    "test_on=best",
)
FULL = (
    "model=alexnet_original",
    "model.dropout=0",
    "data=synthetic",
    "data.train_size=38",
    "data.batch_size=4",
    "data.val_size=8",
    "data.eval_batch_size=8",
    "optimizer.lr=0.0003",
    EXACT,
    "trainer.max_epochs=2",
    "trainer.log_every_n_steps=1",
    "logger=none",
    "test_on=none",
)
ONE, TWO = "trainer=cpu", "trainer=two_towers_cpu"


def run(script: Any, folder: Path, *arguments: str) -> Path:
    ended = script.run(*arguments, f"hydra.run.dir={folder}")
    assert ended.returncode == 0, ended.stderr
    return folder


def resume(script: Any, folder: Path, *arguments: str) -> None:
    ended = script.run(f"resume={folder}", *arguments)
    assert ended.returncode == 0, ended.stderr


def result(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return content


def figures(folder: Path) -> list[dict[str, float]]:
    """The recorded rows of training and validation; in a continued run, the test is at another position."""
    rows = [row for row in read_rows(folder / "metrics.csv") if "test/loss" not in row]
    # Two towers record no gradient norm: each has only its half.
    return [{name: value for name, value in row.items() if name != "train/grad_norm"} for row in rows]


def state(folder: Path) -> dict[str, Tensor]:
    """Weights and momentum buffers of the last checkpoint."""
    content = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    momenta = content["optimizer_states"][0]["state"]
    return content["state_dict"] | {f"momentum of {number}": momenta[number]["momentum_buffer"] for number in momenta}


def assert_same_training(folder: Path, other: Path, steps: int) -> None:
    ours, theirs = figures(folder), figures(other)
    assert sum("train/loss_step" in row for row in ours) == steps
    assert len(ours) == len(theirs)
    for mine, expected in zip(ours, theirs, strict=True):
        assert mine == pytest.approx(expected, rel=1e-7)
    weights, expected_weights = state(folder), state(other)
    assert list(weights) == list(expected_weights)
    for name, value in expected_weights.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-7, atol=1e-10)


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("two-towers")


@pytest.fixture(scope="session")
def single(script: Any, folders: Path) -> Path:
    return run(script, folders / "single", *SMALL, ONE, "trainer.max_epochs=2")


@pytest.fixture(scope="session")
def towers(script: Any, folders: Path) -> Path:
    return run(script, folders / "towers", *SMALL, TWO, "trainer.max_epochs=2")


@pytest.mark.system
def test_two_towers_train_like_a_single_process(towers: Path, single: Path) -> None:
    assert_same_training(towers, single, steps=10)
    ours, theirs = result(towers), result(single)
    assert (ours["world_size"], theirs["world_size"]) == (2, 1)
    assert ours["final"] == pytest.approx({name: theirs["final"][name] for name in ours["final"]}, rel=1e-7)
    assert theirs["final"].keys() - ours["final"].keys() == {"train/grad_norm"}
    assert [ours[key] for key in ("parameters", "macs")] == [theirs[key] for key in ("parameters", "macs")]


@pytest.mark.system
def test_checkpoint_of_two_towers_is_evaluated_in_one_process(towers: Path, script: Any, tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    checkpoint = f"checkpoint={towers}/checkpoints/best.ckpt"
    ended = script.run(checkpoint, ONE, f"out={out}", program=("src/evaluate.py",))
    assert ended.returncode == 0, ended.stderr
    measured, reported = json.loads(out.read_text()), result(towers)["final"]
    assert measured["images"] == 7
    for name in ("test/loss", "test/top1", "test/top5"):
        assert measured[name] == pytest.approx(reported[name], rel=1e-5)


def test_network_without_towers_is_refused_before_anything_starts(script: Any, tmp_path: Path) -> None:
    ended = script.run("model=lenet", "data=synthetic", "logger=none", TWO, f"hydra.run.dir={tmp_path}/run")
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: trainer=two_towers: this network does not have two towers")
    assert not (tmp_path / "run").exists()


@pytest.mark.system
@pytest.mark.parametrize(("before", "after"), [(ONE, TWO), (TWO, ONE)], ids=["one then two", "two then one"])
def test_run_continues_with_the_other_trainer(
    before: str, after: str, single: Path, script: Any, tmp_path: Path
) -> None:
    folder = run(script, tmp_path / "run", *SMALL, before, "trainer.max_epochs=1")
    resume(script, folder, after, EXACT, "trainer.max_epochs=2")
    assert_same_training(folder, single, steps=10)


@pytest.mark.system
def test_twenty_steps_of_the_published_network_equal_the_single_process(script: Any, folders: Path) -> None:
    ours, theirs = (run(script, folders / f"full-{name[8:]}", *FULL, name) for name in (TWO, ONE))
    assert_same_training(ours, theirs, steps=20)
    assert result(ours)["parameters"] == result(theirs)["parameters"] == 56_909_194
