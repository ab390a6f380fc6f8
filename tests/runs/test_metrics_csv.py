"""`metrics.csv`: logged rows, valid after a kill, truncated for a continued run."""

from pathlib import Path

import pytest

from alexnet_lab.runs.metric_rows import (
    COLUMNS,
    best_metrics,
    figures,
    final_metrics,
    read_columns,
    read_rows,
    truncate,
)
from alexnet_lab.runs.metrics_csv import MetricsCsv


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.csv"


def test_new_file_has_the_standard_columns_and_no_row(path: Path) -> None:
    MetricsCsv(path)
    assert path.read_text() == ",".join(COLUMNS) + "\n"
    assert COLUMNS[:2] == ["epoch", "step"]
    assert read_rows(path) == []


def test_each_logged_point_is_a_row_at_once(path: Path) -> None:
    logger = MetricsCsv(path)
    logger.log_metrics({"epoch": 0, "train/loss_step": 2.25, "lr": 0.01}, step=10)
    assert read_rows(path) == [{"epoch": 0, "step": 10, "train/loss_step": 2.25, "lr": 0.01}]
    logger.log_metrics({"epoch": 0, "val/top1": 0.1 + 0.2}, step=20)
    assert read_rows(path)[1] == {"epoch": 0, "step": 20, "val/top1": 0.1 + 0.2}
    assert path.read_text().splitlines()[1].startswith("0,10,2.25,0.01,")


def test_another_metric_adds_a_column_at_the_right_and_keeps_the_rows(path: Path) -> None:
    logger = MetricsCsv(path)
    logger.log_metrics({"epoch": 0, "lr": 0.5}, step=1)
    logger.log_metrics({"epoch": 0, "grad_norm": 3.0}, step=2)
    assert read_columns(path) == [*COLUMNS, "grad_norm"]
    assert read_rows(path) == [{"epoch": 0, "step": 1, "lr": 0.5}, {"epoch": 0, "step": 2, "grad_norm": 3.0}]


def test_continued_run_appends_to_the_existing_columns(path: Path) -> None:
    MetricsCsv(path).log_metrics({"epoch": 0, "grad_norm": 3.0}, step=1)
    MetricsCsv(path).log_metrics({"epoch": 0, "grad_norm": 4.0}, step=2)
    assert [row["grad_norm"] for row in read_rows(path)] == [3.0, 4.0]


def test_incomplete_last_row_is_dropped(path: Path) -> None:
    logger = MetricsCsv(path)
    logger.log_metrics({"epoch": 0, "lr": 0.5}, step=1)
    logger.log_metrics({"epoch": 0, "lr": 0.125}, step=2)
    path.write_text(path.read_text()[:-20])
    assert [row["step"] for row in read_rows(path)] == [1]
    truncate(path, 5)
    MetricsCsv(path).log_metrics({"epoch": 0, "lr": 0.25}, step=2)
    assert [(row["step"], row["lr"]) for row in read_rows(path)] == [(1, 0.5), (2, 0.25)]


def test_truncate_drops_later_steps_and_the_test_and_keeps_the_other_bytes(path: Path) -> None:
    logger = MetricsCsv(path)
    for step in (1, 2):
        logger.log_metrics({"epoch": 0, "train/loss_step": 1 / (step + 2), "lr": 1e-5}, step=step)
    whole = path.read_text()
    logger.log_metrics({"epoch": 1, "test/top1": 0.5}, step=2)
    logger.log_metrics({"epoch": 1, "lr": 0.1}, step=3)
    truncate(path, 2)
    assert path.read_text() == whole


def test_truncate_of_no_file_makes_an_empty_one(path: Path) -> None:
    truncate(path, 0)
    assert read_columns(path) == COLUMNS
    assert read_rows(path) == []


def test_final_metrics_are_the_last_and_best_metrics_the_lowest_loss_and_highest_accuracy() -> None:
    rows = [
        {"epoch": 0, "step": 5, "lr": 0.1, "val/loss": 0.5, "val/top1": 0.75},
        {"epoch": 1, "step": 9, "lr": 0.2, "val/loss": 0.25, "val/top1": 1.0, "train/loss_step": 3.0},
        {"epoch": 2, "step": 9, "lr": 0.1, "val/loss": 2.0, "val/top1": 0.5},
    ]
    assert final_metrics(rows) == {"val/loss": 2.0, "val/top1": 0.5, "train/loss_step": 3.0}
    assert best_metrics(rows) == {"val/loss": 0.25, "val/top1": 1.0, "train/loss_step": 3.0}


def test_best_epoch_and_its_time_are_those_of_the_first_highest_top1_with_a_finite_loss() -> None:
    rows = [
        {"epoch": epoch, "step": 10 * epoch + 10, "val/top1": top1, "val/loss": loss}
        for epoch, (top1, loss) in enumerate([(0.25, 1.0), (0.5, 0.5), (0.5, 0.25), (0.75, float("nan"))])
    ]
    found = figures(rows, {10: 1.5, 20: 3.0, 30: 4.5})
    assert (found["best_epoch"], found["seconds_to_best"]) == (1, 3.0)
    assert figures(rows[:1], {})["seconds_to_best"] is None  # older checkpoints have no times
    assert figures([], {}) == {"final": {}, "best": {}, "best_epoch": None, "seconds_to_best": None}


def test_nan_metrics_are_kept(path: Path) -> None:
    MetricsCsv(path).log_metrics({"epoch": 0, "val/loss": float("nan"), "train/loss": float("inf")}, step=1)
    (row,) = read_rows(path)
    assert row["val/loss"] != row["val/loss"]
    assert row["train/loss"] == float("inf")
