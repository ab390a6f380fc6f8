import json
import os
from pathlib import Path
from typing import Any

import pytest

from alexnet_lab.callbacks.stopwatch import WARM_UP_STEPS
from alexnet_lab.commands.describe import describe
from alexnet_lab.description import cost_meter
from alexnet_lab.description.cost import _print, estimated
from alexnet_lab.errors import UserError

LENET = ("what=cost", "model=lenet", "data=synthetic", "trainer=cpu", "data.batch_size=16", "data.image_size=28")
MEASURED = {
    "steps": 100,
    "steps_per_epoch": 40,
    "batch_size": 16,
    "validation_images": 300,
    "validations": 3,
    "test_images": 50,
    "ranks": 1,
    "hardware": {"device": "a processor"},
    "start_seconds": 6.0,
    "warm_up_steps": 3,
    "warm_up_seconds": 2.0,
    "measured_steps": 5,
    "images": 80,
    "seconds": 2.0,
    "first_batch_images": 10,
    "first_batch_seconds": 1.1,
    "evaluated_images": 30,
    "evaluation_seconds": 0.3,
    "peak_memory_mb": {"process": 500},
    "checkpoint_bytes": 1234,
    "checkpoint_seconds": 0.5,
}


@pytest.fixture(autouse=True)
def _without_a_least_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost_meter, "MEASURED_SECONDS", 0.0)


def described(composed: Any, path: Path, *overrides: str) -> dict[str, Any]:
    describe(composed("describe", *LENET, *overrides, f"out={path}"))
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_time_of_the_run_is_that_of_its_steps_and_evaluations_and_the_warm_up_counts_once() -> None:
    seconds = estimated(MEASURED, keeps=True)["seconds"]
    assert seconds == pytest.approx(
        {
            "start": 6 + 2.0 - 3 * 16 / 40,  # beyond the time of three steps at 40 images/s
            "training": 1600 / 40,
            "validation": 300 / 100 + 3 * 1.0,  # a first batch costs a second more than others
            "test": 50 / 100 + 1.0,
            "checkpoints": 3 * 0.5,
            "total": 6.8 + 40 + 6 + 1.5 + 1.5,
        }
    )
    assert estimated(MEASURED, keeps=False)["seconds"]["checkpoints"] == 0


def test_costs_are_printed_rounded(capsys) -> None:
    _print(estimated({**MEASURED, "steps": 2, "checkpoint_bytes": 505_575}, keeps=True), "lenet")
    shown = capsys.readouterr().out
    for text in ("40 images/s", "400 ms", "2 steps, 0.05 epochs", "0.51 MB (last.ckpt)"):
        assert f" {text} " in shown


def test_five_steps_are_measured_after_three_and_nothing_is_left(composed, capsys, tmp_path, monkeypatch) -> None:
    scratch, home = tmp_path / "scratch", tmp_path / "home"
    scratch.mkdir()
    home.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    monkeypatch.chdir(home)
    length = ("data.train_size=1600", "trainer.max_epochs=4")
    found = described(composed, tmp_path / "cost.json", *length)
    assert (found["warm_up_steps"], found["measured_steps"]) == (WARM_UP_STEPS, 5)
    per_epoch = found["steps"] / 4
    assert found["epochs"] == 4
    assert per_epoch == pytest.approx(1600 * 0.9 / 16, rel=0.2)
    assert found["checkpoint_bytes"] > 2 * 4 * 44_426  # the weights and the momentum, at least
    assert found["seconds"]["validation"] > 0
    assert os.listdir(scratch) == os.listdir(home) == []
    shown = capsys.readouterr().out
    assert "5 steps after 3 that are left out" in shown
    assert f"{found['checkpoint_bytes'] / 1e6:.2g} MB (last.ckpt)" in shown


def test_run_shorter_than_the_measured_steps_is_measured_to_its_end(composed, tmp_path) -> None:
    found = described(composed, tmp_path / "cost.json", "data.train_size=400", "trainer.max_steps=6")
    assert (found["warm_up_steps"], found["measured_steps"], found["steps"]) == (3, 3, 6)


def test_run_without_a_step_to_measure_is_reported(composed, tmp_path) -> None:
    with pytest.raises(UserError, match=r"^the run has 2 optimizer steps: the first 2 are left out, and none is left"):
        described(composed, tmp_path / "cost.json", "data.train_size=400", "trainer.max_steps=2")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["resume=logs/a"], "^resume=logs/a: what=cost measures a new run; omit resume$"),
        (["trainer.num_nodes=2"], "what=cost measures on one machine"),
        (["data=image_folder", "data.dir=nowhere"], "there is no folder"),
    ],
)
def test_what_cannot_be_measured_is_reported_before_the_training(composed, overrides, message) -> None:
    with pytest.raises(UserError, match=message):
        describe(composed("describe", *LENET[:2], "trainer=cpu", *overrides))
