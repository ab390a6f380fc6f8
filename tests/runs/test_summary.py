"""The table at the end of a run shows published metrics next to its own, and whether they are comparable."""

import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from alexnet_lab.runs.summary import print_summary

RESULT = {
    "status": "finished",
    "final": {"train/loss": 0.5, "test/top1": 0.81236, "test/top5": 0.9952, "test/loss": 0.5},
    "best": {"val/top1": 0.82},
    "best_epoch": 3,
    "seconds": 67.0,
    "images_per_second": 9000.0,
    "world_size": 1,
    "parameters": 61706,
    "macs": 416520,
    "checkpoints": {"last": "checkpoints/last.ckpt"},
}
D2L = {
    "name": "d2l_lenet",
    "source": "d2l-zh, 181 runs",
    "published": {"test/top1": {"value": 0.803, "deviation": 0.016}},
}
PAPER = {"name": "krizhevsky_2012", "source": "NIPS 2012, ten views", "published": {"ten_crop/top1": {"value": 0.593}}}


def summary(
    folder: Path, capsys: pytest.CaptureFixture[str], recipe: Any, overrides: list[str] | None = None, **changed: Any
) -> str:
    (folder / "checkpoints").mkdir(exist_ok=True)
    (folder / "checkpoints" / "last.ckpt").touch()
    (folder / "result.json").write_text(json.dumps(RESULT | changed))
    OmegaConf.save({"recipe": recipe, "overrides": overrides or []}, folder / "config.yaml")
    print_summary(folder)
    return capsys.readouterr().out


def row(text: str, label: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"│ {label} ")]
    return [cell.strip() for cell in line.strip("│").split("│")]


@pytest.mark.parametrize(
    "overrides", [[], ["experiment=d2l_lenet", "seed=3", "run=mine", "trainer=ddp", "logger=none", "trainer.devices=2"]]
)
def test_published_metric_is_shown_next_to_ours(
    overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = summary(tmp_path, capsys, D2L, overrides)
    assert row(text, "test/top1") == ["test/top1", "0.8124", "0.803 +- 0.016"]
    assert row(text, "test/top5") == ["test/top5", "0.9952", ""]
    assert "published: d2l-zh, 181 runs\n" in text
    assert "not comparable" not in text


@pytest.mark.parametrize(
    "change", ["trainer.max_epochs=1", "data=synthetic", "debug=fast_dev_run", "model.dropout=0.1"]
)
def test_changed_recipe_is_not_comparable_and_the_change_is_named(
    change: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = summary(tmp_path, capsys, D2L, ["experiment=d2l_lenet", change, "seed=1"])
    assert row(text, "test/top1") == ["test/top1", "0.8124", "(0.803 +- 0.016)"]
    assert f"(not comparable: this run is the recipe with {change})\n" in text


def test_ten_crop_metric_is_not_compared_with_the_centre_and_its_command_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = summary(tmp_path, capsys, PAPER)
    assert row(text, "test/top1") == ["test/top1", "0.8124", ""]
    assert row(text, "ten_crop/top1") == ["ten_crop/top1", "not measured here", "0.593"]
    (line,) = [line for line in text.splitlines() if line.startswith("ten_crop/ is measured by: ")]
    assert "evaluate.py" in line
    assert line.endswith("/checkpoints/last.ckpt protocol=ten_crop")


@pytest.mark.parametrize("recipe", [None, {"name": "ours", "source": "ours", "published": {}}])
def test_run_without_a_published_metric_has_no_column_for_it(
    recipe: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = summary(tmp_path, capsys, recipe)
    assert row(text, "test/top1") == ["test/top1", "0.8124"]
    assert "published:" not in text


@pytest.mark.parametrize(("number", "text"), [(1, "on 1 process"), (2, "on 2 processes")])
def test_number_of_processes_is_in_singular_or_plural(
    number: int, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert row(summary(tmp_path, capsys, None, world_size=number), "training rate")[1].endswith(text)


def test_untested_run_still_shows_published_metrics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = summary(tmp_path, capsys, D2L, ["test_on=none"], final={"train/loss": 0.5})
    assert row(text, "test/top1") == ["test/top1", "not measured here", "(0.803 +- 0.016)"]
