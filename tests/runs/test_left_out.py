"""`data.unreadable=skip` in whole runs: the images that are left out, on two ranks, in a continuation, in evaluate."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig
from PIL import Image

from alexnet_lab.commands.evaluate import evaluate
from alexnet_lab.errors import UserError
from alexnet_lab.runs.metric_rows import read_rows

BAD = ["test/dogs/3.jpg", "train/dogs/2.jpg", "val/cats/1.jpg"]
CHOICES = (
    *("model=lenet", "data=image_folder", "data.num_classes=2", "data.crop_size=224", "data.batch_size=3"),
    *("logger=none", "trainer=ddp_cpu", "callbacks.pictures=null", "trainer.log_every_n_steps=1", "test_on=last"),
)


@dataclass(frozen=True)
class Runs:
    skipped: Path
    """The folder of a run that leaves out three files, continued when these and the cache were gone."""
    reference: Path
    """The same run on a folder without these files."""
    first: str
    """The log of the run's start."""
    images: Path
    """The images of `reference`."""


@pytest.fixture(scope="module")
def runs(script: Any, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    root = tmp_path_factory.mktemp("left_out")
    noise = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for number in range(8):
            path = root / "whole" / split / ("cats", "dogs")[number % 2] / f"{number // 2}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise.integers(0, 256, (32, 40, 3), dtype=np.uint8)).save(path)
    shutil.copytree(root / "whole", root / "without")
    for name in BAD:
        os.truncate(root / "whole" / name, 1000)
        (root / "without" / name).unlink()

    def run(*more: str) -> None:
        ended = script.run(*CHOICES, *more, env=script.environment | {"XDG_CACHE_HOME": str(root / "cache")})
        assert ended.returncode == 0, ended.stderr

    found = [f"data.dir={root / 'whole'}", "data.unreadable=skip", f"hydra.run.dir={root / 'skipped'}"]
    run(*found, "trainer.max_epochs=1")
    log = (root / "skipped" / "train.log").read_text()
    shutil.rmtree(root / "cache")
    (root / "whole" / BAD[0]).unlink()
    run(f"resume={root / 'skipped'}", "trainer.max_epochs=2")
    assert not (root / "cache").exists()
    run(f"data.dir={root / 'without'}", "trainer.max_epochs=2", f"hydra.run.dir={root / 'reference'}")
    return Runs(root / "skipped", root / "reference", log, root / "without")


def test_run_that_leaves_files_out_equals_the_run_without_these_files(runs: Runs) -> None:
    assert read_rows(runs.skipped / "metrics.csv") == read_rows(runs.reference / "metrics.csv")


def test_left_out_files_are_reported_and_recorded(runs: Runs) -> None:
    recorded = json.loads((runs.skipped / "left_out.json").read_text())
    assert [image["file"] for image in recorded] == BAD
    assert all("cut off" in image["reason"] for image in recorded)
    assert "left out: 3 unreadable images" in runs.first
    assert all(f"{image['file']}: {image['reason']}" in runs.first for image in recorded)
    assert "classes: 2: cats, dogs\nimages: 7 train, 7 val, 7 test" in runs.first
    assert not (runs.reference / "left_out.json").exists()


def test_evaluate_leaves_out_the_same_files_as_the_run(
    runs: Runs, composed: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alexnet_lab.data.stored.undecodable", lambda *_: 1 / 0)
    found = evaluate(composed("evaluate", f"checkpoint={runs.skipped}/checkpoints/last.ckpt", "trainer=cpu"))
    result = json.loads((runs.reference / "result.json").read_text())["final"]
    assert found["test/loss"] == pytest.approx(result["test/loss"], rel=1e-6)
    assert found["test/top1"] == result["test/top1"]


def test_images_of_other_classes_than_the_checkpoints_are_refused(
    runs: Runs, composed: Callable[..., DictConfig], tmp_path: Path
) -> None:
    for split in ("train", "val", "test"):
        shutil.copytree(runs.images / split / "cats", tmp_path / split / "dogs")
        shutil.copytree(runs.images / split / "dogs", tmp_path / split / "eels")
    choices = (f"checkpoint={runs.reference}/checkpoints/last.ckpt", "trainer=cpu", f"data.dir={tmp_path}")
    with pytest.raises(UserError, match=r"\(data\.dir\) has images of eels; the network has 2 classes: cats, dogs"):
        evaluate(composed("evaluate", *choices))
