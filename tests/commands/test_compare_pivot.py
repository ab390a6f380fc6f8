"""`compare` with `rows` and `columns`, and `out=*.png`: cells against means of `result.json`, and what is drawn."""

import csv
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.runs.recorded_runs import rows, settings, write_run

from alexnet_lab.commands.compare import compare
from alexnet_lab.errors import UserError
from alexnet_lab.pictures.chart import COLOURS
from alexnet_lab.report import picture
from alexnet_lab.report.curves import points
from alexnet_lab.report.table import compare_runs
from alexnet_lab.runs.run import read_runs

TOP1 = {
    ("lenet", "fashion_mnist", 0.1): (0.80, 0.82, 0.81),
    ("lenet", "fashion_mnist", 0.01): (0.70, 0.72),
    ("lenet", "imagenette", 0.1): (0.5,),
    ("caffenet", "fashion_mnist", 0.1): (0.90, 0.88),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two networks on two datasets, one of them with two learning rates, and a failed run."""
    for (model, data, lr), accuracies in TOP1.items():
        for seed, top1 in enumerate(accuracies):
            config = settings(model, seed, lr=lr)
            config["data"]["name"] = data
            folder = tmp_path / "runs" / f"{model}-{data}-{lr}-s{seed}"
            final = {"test/top1": top1, "test/top5": top1 + 0.1}
            write_run(folder, config, rows(top1), final=final, seconds=60.0 + seed)
    write_run(tmp_path / "runs" / "broken", settings("lenet", 7), rows(0.99), status="failed", error="no memory")
    return tmp_path / "runs"


@pytest.fixture
def compared(composed: Callable[..., Any], folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The output of the command."""

    def run(*overrides: str) -> str:
        compare(composed("compare", f"runs={folder}", *overrides))
        return capsys.readouterr().out

    return run


def cells(path: Path) -> dict[tuple[str, ...], dict[str, str]]:
    with path.open(newline="") as file:
        found = list(csv.DictReader(file))
    names = [name for name in found[0] if not name.startswith(("test/", "seconds"))][:2]
    return {tuple(row[name] for name in names): row for row in found}


def test_cells_are_means_and_deviations_over_the_seeds_of_result_json(
    compared: Callable[..., str], folder: Path, tmp_path: Path
) -> None:
    said = compared("rows=model", "columns=[data,optimizer.lr]", f"out=[{tmp_path}/x.csv,{tmp_path}/x.md]")
    with (tmp_path / "x.csv").open(newline="") as file:
        found = {(row["model"], row["data"], float(row["optimizer.lr"])): row for row in csv.DictReader(file)}
    assert found.keys() == TOP1.keys()
    for (model, data, lr), row in found.items():
        results = [json.loads(path.read_text()) for path in folder.glob(f"{model}-{data}-{lr}-s*/result.json")]
        values = [result["final"]["test/top1"] for result in results]
        assert float(row["test/top1"]) == pytest.approx(statistics.mean(values), abs=1e-12)
        expected = pytest.approx(statistics.stdev(values), abs=1e-12) if len(values) > 1 else 0
        assert float(row["test/top1 deviation"] or 0) == expected
        assert (row["n"], row["groups in the cell"], row["differing settings"]) == (str(len(values)), "1", "")
    heads, _, *lines = said.splitlines()
    assert [head.strip() for head in heads.split("  ") if head][:2] == [
        "model",
        "data=fashion_mnist, optimizer.lr=0.01",
    ]
    assert lines[0].split() == ["caffenet", *["0.8900", "±", "0.0141", "(n", "2)"]]
    assert lines[1].split()[-3:] == ["0.5000", "(n", "1)"]
    assert "runs left out, since they did not finish or have no test/top1: 1" in said
    assert "best of" not in said
    assert "| lenet | 0.7100 ± 0.0141 (n 2) | 0.8100 ± 0.0100 (n 3) | 0.5000 (n 1) |" in (tmp_path / "x.md").read_text()


def test_groups_that_share_a_cell_are_not_averaged_and_their_difference_is_named(
    compared: Callable[..., str], tmp_path: Path
) -> None:
    said = compared("rows=model", "columns=data", f"out=[{tmp_path}/x.csv,{tmp_path}/x.html]")
    assert "best of k: k groups of runs share the cell and differ in optimizer.lr" in said
    found = cells(tmp_path / "x.csv")
    shared = found["lenet", "fashion_mnist"]
    assert float(shared["test/top1"]) == pytest.approx(0.81)
    assert (shared["groups in the cell"], shared["differing settings"], shared["n"]) == ("2", "optimizer.lr", "3")
    assert found["caffenet", "fashion_mnist"]["groups in the cell"] == "1"
    page = (tmp_path / "x.html").read_text()
    assert "<td>0.8100 ± 0.0100 (n 3) best of 2</td>" in page
    assert "test top-1 by model and data" in page
    # Of a metric that is better when it is smaller, the smallest.
    compared("rows=model", "columns=data", "metric=seconds", f"out={tmp_path}/x.csv")
    assert float(cells(tmp_path / "x.csv")["lenet", "fashion_mnist"]["seconds"]) == 60.5


def test_the_metric_is_that_of_sort_and_a_setting_that_old_runs_lack_has_its_default(
    compared: Callable[..., str], folder: Path, tmp_path: Path
) -> None:
    smoothed = settings("lenet", 0, loss={"label_smoothing": 0.1})
    write_run(folder / "smoothed", smoothed, rows(0.6))
    compared("rows=label_smoothing", "sort=val/top1", f"out={tmp_path}/x.csv")
    with (tmp_path / "x.csv").open(newline="") as file:
        found = {row["label_smoothing"]: row for row in csv.DictReader(file)}
    assert found.keys() == {"0", "0.1"}
    assert float(found["0.1"]["val/top1"]) == [row for row in rows(0.6) if "val/top1" in row][-1]["val/top1"]
    assert set(found["0"]["differing settings"].split()) == {
        "model",
        "data",
        "optimizer.lr",
        "model.activation",
        "model.norm",
    }


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["rows=modle"], "rows=modle: there is no such setting, did you mean model?"),
        (
            ["rows=model", "columns=optimizer.ls"],
            "columns=optimizer.ls: there is no such setting, did you mean optimizer.lr?",
        ),
        (["rows=_target_"], "rows=_target_: it is one of model._target_, "),
        (["rows=model", "metric=test/top2"], "metric=test/top2: there is no such metric, did you mean test/top"),
        (["rows=model", "baseline=broken"], "baseline=... has no differences in a table of rows= and columns="),
        (["metric=test/top1"], "metric=... is shown in a table of settings; name them: rows=model columns=data"),
        (["rows=3"], "rows=3: rows takes text or a list or null"),
    ],
)
def test_wrong_pivot_is_reported(compared: Callable[..., str], overrides: list[str], line: str) -> None:
    with pytest.raises(UserError) as raised:
        compared(*overrides)
    assert str(raised.value).startswith(line)


def test_curves_are_means_over_seeds_with_their_deviation(folder: Path) -> None:
    comparison = compare_runs(read_runs([str(folder)]))
    panel = next(one for one in picture.panels_of(comparison.groups) if one.y == picture.TITLES["val/top1"])
    (line,) = (one for one in panel.lines if one.label == "lenet-fashion_mnist-0.1-s*")
    (group,) = (one for one in comparison.groups if one.name == line.label)
    values = [points(run)["val/top1"].value for run in group.runs]
    assert list(line.x) == [1, 2, 3]
    for place, (mean, low, high) in enumerate(zip(line.y, line.low, line.high, strict=True)):
        of_epoch = [one[place] for one in values]
        assert mean == pytest.approx(statistics.mean(of_epoch))
        assert (mean - low, high - mean) == pytest.approx((statistics.stdev(of_epoch),) * 2)


def test_picture_shows_the_heat_map_above_the_curves_and_at_most_twelve_groups(
    compared: Callable[..., str], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Any] = []
    draw = picture.heat_map
    monkeypatch.setattr(picture, "heat_map", lambda given: (shown.append(given), draw(given))[1])
    monkeypatch.setattr(picture, "SHOWN", 3)
    titles: list[str] = []
    chart = picture.chart
    monkeypatch.setattr(
        picture, "chart", lambda panels, title, **more: (titles.append(title), chart(panels, title, **more))[1]
    )
    said = compared("rows=model", "columns=data", f"out={tmp_path}/x.png")
    assert f"written: {tmp_path}/x.png" in said
    (given,) = shown
    assert (given.rows, given.columns) == (["caffenet", "lenet"], ["fashion_mnist", "imagenette"])
    assert np.allclose(given.values, [[0.89, np.nan], [0.81, 0.5]], equal_nan=True)
    assert given.texts[1] == ["0.8100 ± 0.0100\n(n 3)\nbest of 2", "0.5000\n(n 1)"]
    assert titles == ["Learning curves, mean over seeds ± standard deviation: the first 3 of 5 by test/top1"]
    pixels = np.asarray(Image.open(tmp_path / "x.png")).astype(int)
    for position, colour in enumerate(COLOURS[:5]):
        rgb = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
        assert ((pixels == rgb).all(2).sum() > 50) == (position < 3)
