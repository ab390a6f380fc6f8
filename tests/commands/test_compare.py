"""`compare` from the command line to the written files, on synthetic runs and on a real one."""

import csv
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest
from tests.counting import calls
from tests.runs.recorded_runs import rows, settings, write_run

from alexnet_lab.commands.compare import compare
from alexnet_lab.errors import UserError
from alexnet_lab.rows import Rows
from alexnet_lab.rows import write_rows as save_rows

ACCURACIES = {"lenet": (0.80, 0.82, 0.81), "caffenet": (0.90, 0.88)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two networks with three and two seeds, one of them with a published value, and a failed run."""
    recipe = {"name": "book", "published": {"test/top1": {"value": 0.803, "deviation": 0.016}}}
    for model, accuracies in ACCURACIES.items():
        for seed, top1 in enumerate(accuracies):
            config = settings(model, seed, recipe=recipe if model == "lenet" else None)
            write_run(tmp_path / "runs" / f"{model}-s{seed}", config, rows(top1))
    broken = settings("lenet", 7, lr=9.0)
    write_run(tmp_path / "runs" / "broken", broken, [], status="failed", error="the loss is not finite")
    return tmp_path / "runs"


@pytest.fixture
def compared(composed: Callable[..., Any], folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The output of the command."""

    def run(*overrides: str) -> str:
        compare(composed("compare", f"runs={folder}", *overrides))
        return capsys.readouterr().out

    return run


def table(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as file:
        return {row["run"]: row for row in csv.DictReader(file)}


def test_metrics_equal_those_recomputed_from_metrics_csv(
    compared: Callable[..., str], folder: Path, tmp_path: Path
) -> None:
    compared(f"out={tmp_path}/x.csv")
    found = table(tmp_path / "x.csv")
    assert set(found) == {"lenet-s*", "caffenet-s*", "broken"}
    for model in ACCURACIES:
        logged = []
        for path in sorted(folder.glob(f"{model}-s*/metrics.csv")):
            with path.open(newline="") as file:
                logged.append(list(csv.DictReader(file)))
        for metric in ("test/top1", "test/top5", "val/top1", "val/top5"):
            series = [[float(row[metric]) for row in one if row[metric]] for one in logged]
            final, best = [one[-1] for one in series], [max(one) for one in series]
            row = found[f"{model}-s*"]
            assert float(row[metric]) == pytest.approx(statistics.mean(final), abs=1e-12)
            assert float(row[f"{metric} deviation"]) == pytest.approx(statistics.stdev(final), abs=1e-12)
            if metric.startswith("val/"):
                assert float(row[f"best_{metric}"]) == pytest.approx(statistics.mean(best), abs=1e-12)
                assert max(best) > max(final)
        assert row["n"] == str(len(logged))
        assert float(row["epochs"]) == 3


def test_table_shows_means_published_values_and_only_differing_settings(compared: Callable[..., str]) -> None:
    lines = compared().splitlines()
    heads = " ".join(lines[:2])
    for title in ("published test", "model", "lr", "epochs", "time (s)", "images/s", "parameters", "MACs"):
        assert title in heads
    assert "momentum" not in heads
    assert "seed" not in heads
    names = [line.split()[0] for line in lines if line.strip().startswith(("lenet", "caffenet", "broken"))]
    assert names == ["caffenet-s*", "lenet-s*", "broken"]
    (lenet,) = (line for line in lines if line.strip().startswith("lenet-s*"))
    assert lenet.split()[1:5] == ["finished", "3", "0.8100", "0.803"]
    assert "failed: broken: the loss is not finite" in lines


@pytest.mark.parametrize("baseline", ["lenet-s1", "{folder}/lenet-s1", "{folder}/../runs/lenet-s1/", "lenet-s*"])
def test_differences_to_a_baseline_have_an_interval(
    compared: Callable[..., str], folder: Path, tmp_path: Path, baseline: str
) -> None:
    said = compared(f"baseline={baseline.format(folder=folder)}", f"out=[{tmp_path}/x.csv,{tmp_path}/x.md]")
    assert "differences to lenet-s*, [95% confidence interval] w: Welch's t over the seeds of both groups" in said
    row = table(tmp_path / "x.csv")["caffenet-s*"]
    low, value, high = (float(row[f"test/top1 difference {part}"]) for part in ("low", "value", "high"))
    assert row["test/top1 difference method"] == "Welch"
    assert value == pytest.approx(0.08)
    # Variances 0.0002 / 2 and 0.0001 / 3, freedom 1.684..., t = 5.19...
    assert (value - low, high - value) == pytest.approx((0.0599, 0.0599), abs=5e-4)
    assert table(tmp_path / "x.csv")["broken"]["test/top1 difference value"] == ""
    markdown = (tmp_path / "x.md").read_text()
    assert f"| +0.0800 \\[{low:+.4f}, {high:+.4f}] w |" in markdown
    assert "| 0.8100 ± 0.0100 | 0.803 ± 0.016 | baseline |" in markdown


def test_single_runs_with_rows_of_the_same_images_are_compared_image_by_image(
    compared: Callable[..., str], folder: Path, tmp_path: Path
) -> None:
    numbers = np.arange(100)
    right = {"lenet-s0": numbers < 80, "caffenet-s0": (numbers >= 4) & (numbers < 94)}
    for name, hits in right.items():
        (folder / name / "rows").mkdir()
        best = np.stack([np.where(hits, 0, 9), *(np.full(100, label) for label in range(1, 5))], 1)
        best[np.flatnonzero(~hits)[:10], 1] = 0  # top-5 is 0.1 higher than top-1, as recorded
        known = Rows(numbers, None, 0 * numbers, best, best * 0.1, best[:, 0] * 0.1, dict(enumerate("abcdefghij")))
        save_rows(folder / name / "rows/rows.csv", known)
        (folder / name / "rows/summary.json").write_text(json.dumps({"split": "test", "protocol": "center"}))
    options = ("group_seeds=false", "baseline=lenet-s0", f"out={tmp_path}/x.csv")
    said = compared(*options)
    p = binomtest(4, 18).pvalue
    assert f"paired, p {p:.3g}" in said
    assert "paired: single runs image by image" in said
    found = table(tmp_path / "x.csv")["caffenet-s0"]
    assert found["test/top1 difference method"] == "paired"
    assert float(found["test/top1 difference p"]) == pytest.approx(p)
    assert float(found["test/top1 difference value"]) == pytest.approx(0.1)
    assert table(tmp_path / "x.csv")["lenet-s1"]["test/top1 difference method"] == "images"
    # Rows of another checkpoint or split do not count.
    for part in ({"split": "val"}, {"protocol": "ten_crop"}):
        summary = {"split": "test", "protocol": "center", **part}
        (folder / "lenet-s0/rows/summary.json").write_text(json.dumps(summary))
        compared(*options)
        assert table(tmp_path / "x.csv")["caffenet-s0"]["test/top1 difference method"] == "images"


def test_confidence_level_is_printed_as_given(compared: Callable[..., str]) -> None:
    assert "[99.9% confidence interval]" in compared("baseline=lenet-s1", "confidence=0.999")


def test_accuracies_on_different_datasets_have_no_difference(
    compared: Callable[..., str], folder: Path, tmp_path: Path
) -> None:
    config = settings()
    write_run(folder / "elsewhere", {**config, "data": {**config["data"], "name": "imagenette"}}, rows(0.5))
    compared("baseline=lenet-s1", f"out={tmp_path}/x.csv")
    found = table(tmp_path / "x.csv")
    assert found["elsewhere"]["test/top1 difference value"] == ""
    assert found["caffenet-s*"]["test/top1 difference value"] != ""


@pytest.mark.parametrize(
    ("sort", "names"),
    [
        ("test/top1", ["caffenet-s*", "lenet-s*", "broken"]),
        ("-test/top1", ["lenet-s*", "caffenet-s*", "broken"]),
        ("name", ["broken", "caffenet-s*", "lenet-s*"]),
        ("lr", ["caffenet-s*", "lenet-s*", "broken"]),
        ("-optimizer.lr", ["broken", "caffenet-s*", "lenet-s*"]),
    ],
)
def test_rows_are_sorted_by_any_column(
    compared: Callable[..., str], tmp_path: Path, sort: str, names: list[str]
) -> None:
    compared(f"sort={sort}", f"out={tmp_path}/x.csv")
    assert list(table(tmp_path / "x.csv")) == names


def test_error_of_a_failed_run_cannot_control_the_terminal(compared: Callable[..., str], folder: Path) -> None:
    write_run(folder / "loud", settings("lenet", 8), [], status="failed", error="red \x1b[31malert\x07")
    said = compared()
    assert "failed: loud: red \N{REPLACEMENT CHARACTER}[31malert" in said
    assert "\x1b" not in said


def test_seeds_can_be_shown_separately(compared: Callable[..., str], tmp_path: Path) -> None:
    compared("group_seeds=false", f"out={tmp_path}/x.csv")
    found = table(tmp_path / "x.csv")
    assert len(found) == 6
    assert float(found["lenet-s1"]["test/top1"]) == 0.82
    assert found["lenet-s1"]["seed"] == "1"


def test_real_run_is_compared_with_its_own_result(
    trained_run: Any, composed: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compare(composed("compare", f"runs={trained_run.folder}", f"out=[{tmp_path}/x.csv,{tmp_path}/x.html]"))
    (row,) = table(tmp_path / "x.csv").values()
    result = trained_run.result
    assert result["images"] == {"train": 128, "val": 128, "test": 100}
    for metric in ("test/top1", "test/top5", "val/top1", "val/top5"):
        assert float(row[metric]) == result["final"][metric]
    assert float(row["best_val/top1"]) == result["best"]["val/top1"]
    assert (float(row["parameters"]), float(row["macs"])) == (result["parameters"], result["macs"])
    assert (float(row["epochs"]), float(row["seconds"])) == (2, result["seconds"])
    assert "Learning curves" in (tmp_path / "x.html").read_text()


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["sort=tset/top1"], "sort=tset/top1: there is no such column, did you mean test/top1?"),
        (["baseline=lenet"], "baseline=lenet: there is no such run, did you mean lenet-s*?"),
        (["confidence=high"], "confidence=high: confidence takes a number"),
        (["confidence=95"], "confidence must be between 0 and 1, got 95"),
        (["group_seeds=maybe"], "group_seeds=maybe: group_seeds takes true or false"),
        (["wandb_filters=finished"], "wandb_filters=finished: wandb_filters takes keys or null"),
        (["out=page.pdf"], "out=page.pdf: the name must end in .html or .csv or .md or .png"),
        (["out=/proc/nowhere/x.csv"], "out=/proc/nowhere/x.csv: no file can be written in /proc (No such file"),
        (["runs=nowhere"], "runs=nowhere: there is no such folder"),
        (["runs=null"], "name runs: runs=FOLDER"),
    ],
)
def test_wrong_value_is_reported(compared: Callable[..., str], overrides: list[str], line: str) -> None:
    with pytest.raises(UserError) as raised:
        compared(*overrides)
    assert str(raised.value).startswith(line)


def test_script_prints_the_table_and_reports_a_wrong_key(script: Any, folder: Path) -> None:
    ended = script.run(f"runs={folder}", program=("src/compare.py",))
    assert ended.returncode == 0, ended.stderr
    assert "lenet-s*" in ended.stdout
    assert all(line == line.rstrip() for line in ended.stdout.splitlines())
    ended = script.run("srot=x", program=("src/compare.py",))
    assert (ended.returncode, ended.stderr.splitlines()[0]) == (
        2,
        "error: there is no option 'srot', did you mean sort?",
    )


def test_comparison_loads_neither_torch_nor_lightning(script: Any, folder: Path) -> None:
    ended = script.run(f"runs={folder}", f"out={folder}/x.html", program=("-X", "importtime", "src/compare.py"))
    assert ended.returncode == 0, ended.stderr
    loaded = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines() if line.startswith("import time:")}
    assert "plotly" in loaded
    assert not loaded & {"torch", "lightning", "torchmetrics", "wandb", "pandas", "matplotlib", "PIL"}


def test_calls_and_page_grow_no_faster_than_the_number_of_runs(composed: Callable[..., Any], tmp_path: Path) -> None:
    page = tmp_path / "x.html"

    def cost(number: int) -> tuple[int, int]:
        for place in range(number):
            config = settings(seed=place % 4, lr=place // 4 + 1)
            write_run(tmp_path / f"{number}" / f"r{place}", config, rows(0.8, epochs=90, steps=450))
        asked = composed("compare", f"runs={tmp_path}/{number}", f"out={page}")
        return calls(lambda: compare(asked)), page.stat().st_size

    (few, small), (many, large) = cost(5), cost(20)
    assert many < 4.2 * few
    assert large - small < 15 * 150_000
