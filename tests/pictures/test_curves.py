"""The learning curves of a run: what `chart` is given, and when they are drawn."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_pictures import TINY
from tests.runs.recorded_runs import rows

from alexnet_lab.errors import RunInterrupted
from alexnet_lab.pictures import callback, curves
from alexnet_lab.pictures.chart import COLOURS, Panel
from alexnet_lab.runs.metric_rows import read_rows
from alexnet_lab.training import train

RUN = ("trainer.log_every_n_steps=1", "test_on=last")
WHOLE = (*TINY, *RUN)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[list[Panel]]:
    """The panels of each chart that is drawn."""
    found: list[list[Panel]] = []
    draw = curves.chart

    def remembered(panels: list[Panel]) -> Image.Image:
        found.append(panels)
        return draw(panels)

    monkeypatch.setattr(curves, "chart", remembered)
    return found


def lines(panel: Panel) -> dict[str, list[tuple[float, float]]]:
    return {line.label: list(zip(line.x, line.y, strict=True)) for line in panel.lines}


def test_each_metric_has_a_panel_of_training_and_validation_over_epochs_and_the_test_value() -> None:
    recorded = rows(0.8, epochs=4)
    found = curves.panels(recorded)
    assert [(panel.x, panel.y) for panel in found] == [
        ("epoch", "loss (cross-entropy)"),
        ("epoch", "top-1 accuracy"),
        ("epoch", "top-5 accuracy"),
    ]
    for panel, name in zip(found, ("loss", "top1", "top5"), strict=True):
        tested = recorded[-1][f"test/{name}"]
        expected = {
            split: [(row["epoch"] + 1, row[f"{split}/{name}"]) for row in recorded if f"{split}/{name}" in row]
            for split in ("train", "val")
        }
        assert lines(panel) == expected | {f"test {tested:.4f}": [(0, tested), (4, tested)]}


def test_a_validation_in_the_middle_of_an_epoch_is_drawn_at_its_fraction() -> None:
    recorded = [{"epoch": 0, "step": 25, "val/top1": 0.3}, *rows(0.8, epochs=2, steps=100)]
    assert lines(curves.panels(recorded)[1])["val"][0] == (0.25, 0.3)


def test_a_run_of_less_than_two_epochs_is_drawn_over_steps_with_the_loss_of_its_steps() -> None:
    recorded = rows(0.8, epochs=1)
    loss, top1, _ = curves.panels(recorded)
    assert loss.x == top1.x == "optimizer step"
    assert lines(loss)[curves.SINCE_LOGGED] == [
        (row["step"], row[curves.STEP]) for row in recorded if curves.STEP in row
    ]
    assert lines(top1)["val"] == [(100, next(row["val/top1"] for row in recorded if "val/top1" in row))]


def test_metrics_that_are_missing_or_not_finite_are_left_out() -> None:
    assert curves.curves_picture([]) is None
    recorded = [{name: value for name, value in row.items() if "val/" not in name} for row in rows(0.8)[:-1]]
    recorded.append({"epoch": 3, "step": 400, "train/loss": float("nan"), "train/top1": 0.1})
    loss, top1, _ = curves.panels(recorded)
    assert (len(lines(loss)["train"]), len(lines(top1)["train"])) == (3, 4)
    assert set(lines(loss)) == {"train"}
    assert loss.title == "train"


@pytest.mark.parametrize(("missed", "panels"), [(0.0, 2), (0.01, 3)])
def test_top5_that_is_always_one_is_left_out(missed: float, panels: int) -> None:
    recorded = [
        {name: 1.0 - missed if name.endswith("/top5") else value for name, value in row.items()} for row in rows(0.8)
    ]
    assert len(curves.panels(recorded)) == panels


def test_curves_of_a_continued_run_show_its_whole_history_in_the_colours_of_their_lines(
    settings: Callable[..., dict[str, Any]], as_in_a_rank: None, tmp_path: Path, drawn: list[list[Panel]]
) -> None:
    def in_second_epoch() -> bool:
        return any("train/loss" in row for row in read_rows(tmp_path / "metrics.csv"))

    with pytest.raises(RunInterrupted):
        train(settings(*WHOLE), tmp_path, None, 0.0, stop_requested=in_second_epoch)
    assert len(lines(drawn[-1][1])["train"]) == 1
    picture = tmp_path / "pictures" / "curves.png"
    picture.unlink()
    train(settings(*WHOLE), tmp_path, tmp_path / "checkpoints" / "last.ckpt", 0.0)
    assert len(drawn) == 2  # once per session, also with a test
    result = json.loads((tmp_path / "result.json").read_text())["final"]
    recorded = read_rows(tmp_path / "metrics.csv")
    for panel, name in zip(drawn[-1], ("loss", "top1", "top5"), strict=True):
        for split in ("train", "val"):
            values = [row[f"{split}/{name}"] for row in recorded if f"{split}/{name}" in row]
            assert lines(panel)[split] == [(1, values[0]), (2, values[1])]
            assert values[1] == result[f"{split}/{name}"]
        assert lines(panel)[f"test {result[f'test/{name}']:.4f}"][0] == (0, result[f"test/{name}"])
    pixels = np.asarray(Image.open(picture)).astype(int)
    for colour in COLOURS[:3]:
        rgb = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
        assert (pixels == rgb).all(2).sum() > 100


def test_curves_are_redrawn_at_epochs_while_it_takes_one_percent_of_the_time(
    settings: Callable[..., dict[str, Any]], as_in_a_rank: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each epoch takes 100 s here and each drawing 0.6 s; the first is expected to take 1 s."""
    clock, epochs, logged = [0.0], [], []
    monkeypatch.setattr(callback.time, "perf_counter", lambda: clock[0])

    def draw(known: list[dict[str, float]]) -> Image.Image:
        clock[0] += 0.6
        epochs.append(sum("train/loss" in row for row in known))
        return Image.new("L", (1, 1))

    monkeypatch.setattr(callback, "curves_picture", draw)
    begin = callback.Pictures.on_train_epoch_start

    def later(self: Any, *given: Any) -> None:
        clock[0] += 100
        begin(self, *given)

    monkeypatch.setattr(callback.Pictures, "on_train_epoch_start", later)
    monkeypatch.setattr(callback.Pictures, "_show", lambda *given: logged.append(given[2:]))
    train(settings(*TINY, "trainer.max_epochs=5"), tmp_path, None, 0.0)
    assert epochs == [1, 2, 3, 4, 5]
    shown = [more for name, *_, more in [(one[0], *one[1:]) for one in logged] if name == "curves"]
    assert shown == [False, False, False, False, True]
