"""`evaluate rows=` and `against=`: every number is recomputed from rows.csv by a few independent lines."""

import csv
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from PIL import Image
from scipy.stats import binomtest

from alexnet_lab.command_line import CALLER
from alexnet_lab.commands.evaluate import evaluate
from alexnet_lab.errors import UserError
from alexnet_lab.report import changes, row_files
from alexnet_lab.rows import Rows, read_rows, write_rows

CONF = Path(__file__).parents[2] / "conf"


def compose_of(name: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, list(overrides))


def records(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def networks(trained_run: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two similar networks with random weights, and 50 test images of synthetic data."""
    folder = tmp_path_factory.mktemp("networks")
    content = torch.load(trained_run.last, weights_only=True)
    content["config"]["data"] |= {"test_size": 50, "eval_batch_size": 8}
    generator = torch.Generator().manual_seed(1)
    for name, amount in (("one", 0.6), ("two", 0.3)):
        for tensor in content["state_dict"].values():
            tensor.add_(torch.randn(tensor.shape, generator=generator) * amount)
        torch.save(content, folder / f"{name}.ckpt")
    return folder / "one.ckpt", folder / "two.ckpt"


@pytest.fixture(scope="module")
def measured(networks: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    """The folder of rows of the first network, compared with the second; and the metrics."""
    folder = tmp_path_factory.mktemp("rows")
    outs = ",".join(f"{folder}/changes.{suffix}" for suffix in ("html", "csv", "json"))
    options = (f"checkpoint={networks[0]}", f"against={networks[1]}", f"rows={folder}/rows", f"out=[{outs}]")
    figures = evaluate(compose_of("evaluate", *options, "trainer=cpu"))
    evaluate(compose_of("evaluate", f"checkpoint={networks[1]}", f"rows={folder}/other", "trainer=cpu"))
    return folder, figures


def test_rows_have_every_image_once_in_the_order_of_the_split(measured: Any) -> None:
    folder, figures = measured
    rows = records(folder / "rows/rows.csv")
    assert [int(row["sample"]) for row in rows] == list(range(50))
    assert np.mean([int(row["top1"]) for row in rows]) == figures["test/top1"]
    assert np.mean([int(row["top5"]) for row in rows]) == figures["test/top5"]
    assert np.mean([float(row["loss"]) for row in rows]) == pytest.approx(figures["test/loss"], rel=1e-5)
    for row in rows:
        labels = [row[f"label_{rank}"] for rank in range(1, 6)]
        assert int(row["top1"]) == (labels[0] == row["label"])
        assert int(row["top5"]) == (row["label"] in labels)
        if row["label"] in labels:
            probability = float(row[f"probability_{labels.index(row['label']) + 1}"])
            assert -np.log(probability) == pytest.approx(float(row["loss"]), rel=1e-4, abs=2e-6)
        assert row["class"] == f"class {row['label']}"
        assert row["path"] == ""


def test_accuracy_by_class_and_confusions_follow_from_the_rows(measured: Any) -> None:
    folder, _ = measured
    rows = records(folder / "rows/rows.csv")
    classes = records(folder / "rows/classes.csv")
    assert len(classes) == 10
    for found in classes:
        mine = [row for row in rows if row["label"] == found["label"]]
        assert int(found["images"]) == len(mine)
        for name in ("top1", "top5", "loss"):
            expected = np.mean([float(row[name]) for row in mine]) if mine else None
            assert (float(found[name]) if found[name] else None) == (
                expected if expected is None else pytest.approx(expected, rel=5e-6)
            )
    wrong = Counter((row["label"], row["label_1"]) for row in rows if row["top1"] == "0")
    found_pairs = records(folder / "rows/confusions.csv")
    assert {(one["label"], one["predicted_label"]): int(one["images"]) for one in found_pairs} == wrong
    assert [int(one["images"]) for one in found_pairs] == sorted(wrong.values(), reverse=True)


def test_calibration_error_follows_from_the_rows(measured: Any) -> None:
    folder, _ = measured
    rows = records(folder / "rows/rows.csv")
    confidence = np.array([float(row["probability_1"]) for row in rows])
    right = np.array([float(row["top1"]) for row in rows])
    error = 0.0
    for number in range(15):
        inside = (confidence > number / 15) & (confidence <= (number + 1) / 15)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    summary = json.loads((folder / "rows/summary.json").read_text())
    assert summary["ece"] == pytest.approx(error, rel=1e-12)
    assert (summary["split"], summary["protocol"], summary["images"]) == ("test", "center", 50)
    assert sum(int(one["images"]) for one in records(folder / "rows/calibration.csv")) == 50


@pytest.mark.parametrize("name", ["classes", "confusions", "calibration"])
def test_fractions_in_the_tables_have_six_significant_digits(measured: Any, name: str) -> None:
    cells = [cell for row in records(measured[0] / f"rows/{name}.csv") for cell in row.values() if "." in cell]
    assert cells
    assert cells == [f"{float(cell):.6g}" for cell in cells]


def test_pictures_are_written(measured: Any) -> None:
    folder, _ = measured
    for name in ("worst.png", "calibration.png"):
        with Image.open(folder / "rows" / name) as picture:
            assert min(picture.size) > 400


def test_mcnemar_and_changed_images_follow_from_the_rows_of_both(measured: Any) -> None:
    folder, _ = measured
    one, two = records(folder / "rows/rows.csv"), records(folder / "other/rows.csv")
    against = json.loads((folder / "changes.json").read_text())["against"]
    for name in ("top1", "top5"):
        ours, theirs = ([int(row[name]) for row in rows] for rows in (one, two))
        lost = sum(a > b for a, b in zip(ours, theirs, strict=True))
        won = sum(a < b for a, b in zip(ours, theirs, strict=True))
        found = against[name]
        assert (found["only_first"], found["only_second"], found["images"]) == (lost, won, 50)
        assert found["value"] == pytest.approx(np.mean(ours) - np.mean(theirs), abs=1e-12)
        assert found["p"] == pytest.approx(binomtest(lost, lost + won).pvalue if lost + won else 1, rel=1e-12)
        assert found["low"] <= found["value"] <= found["high"]
    changed = records(folder / "changes.csv")
    assert len(changed) == against["top1"]["only_first"] + against["top1"]["only_second"] > 0
    for row in changed:
        sample = int(row["sample"])
        before = one[sample]["top1"] == "1"
        assert row["change"] == ("right only in this one" if before else "right only in the other")
        assert (row["predicted"], row["against_predicted"]) == (one[sample]["class_1"], two[sample]["class_1"])
    page = (folder / "changes.html").read_text()
    assert page.count("<figure>") == len(changed)
    assert "http://" not in page.split("</style>")[1]


def test_page_names_checkpoints_relative_to_the_working_folder(
    measured: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = read_rows(measured[0] / "rows/rows.csv")
    monkeypatch.delenv(CALLER, raising=False)
    monkeypatch.chdir(tmp_path)
    names = (f"{tmp_path}/logs/a.ckpt, {tmp_path}/b.ckpt", "torchvision")
    about = {"images": 50, "split": "test", "protocol": "center"}
    page = changes.html(changes.compare(names, rows, rows), lambda sample: np.zeros((1, 9, 9), np.uint8), about)
    assert "this checkpoint: logs/a.ckpt, b.ckpt<br>against: torchvision<br>" in page


@pytest.mark.parametrize("rows", ["other", "other/rows.csv"])
def test_recorded_rows_take_the_place_of_a_checkpoint(
    rows: str, composed: Callable[..., Any], networks: Any, measured: Any, tmp_path: Path
) -> None:
    folder, _ = measured
    out = tmp_path / "against.json"
    evaluate(composed("evaluate", f"checkpoint={networks[0]}", f"against={folder}/{rows}", f"out={out}", "trainer=cpu"))
    expected = json.loads((folder / "changes.json").read_text())["against"]
    found = json.loads(out.read_text())["against"]
    assert {**found, "checkpoint": None} == {**expected, "checkpoint": None}


def test_rows_of_several_networks_are_those_of_the_mean_probabilities(
    composed: Callable[..., Any], networks: Any, measured: Any, tmp_path: Path
) -> None:
    given = f"checkpoint=[{networks[0]},{networks[1]}]"
    figures = evaluate(composed("evaluate", given, f"rows={tmp_path}/mean", "trainer=cpu"))
    folders = (tmp_path / "mean", measured[0] / "rows", measured[0] / "other")
    mean, one, two = (read_rows(folder / "rows.csv") for folder in folders)
    assert mean.top1.mean() == figures["test/top1"]
    both = -np.log((np.exp(-one.losses) + np.exp(-two.losses)) / 2)
    np.testing.assert_allclose(mean.losses, both, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("against={one}",), "is the checkpoint itself; name another one"),
        (("against=nowhere.ckpt",), "^against=nowhere.ckpt: there is no such file"),
        (("against=[{rows},{one}]",), "rows.csv has rows, and rows cannot be averaged"),
        (("against={last}",), r"evaluated on different images \(50 and 100 images\)"),
        (("out=changes.html",), "against=CHECKPOINT is missing"),
        (("against=7",), "does not fit|name a checkpoint: against=PATH"),
        (("rows=[a,b]",), "rows: .* does not fit"),
    ],
)
def test_wrong_comparison_is_refused_with_its_reason(
    composed: Callable[..., Any],
    networks: Any,
    measured: Any,
    trained_run: Any,
    options: tuple[str, ...],
    message: str,
) -> None:
    places = {"one": networks[0], "last": trained_run.last, "rows": measured[0] / "rows"}
    given = [option.format(**places) for option in options]
    with pytest.raises(UserError, match=message):
        evaluate(composed("evaluate", f"checkpoint={networks[0]}", "trainer=cpu", *given))


def test_written_rows_are_read_back_unchanged(tmp_path: Path) -> None:
    odd = ["a,b/c\n.png", "val/\udcff.png"]
    rows = Rows(
        samples=np.array([3, 8]),
        paths=odd,
        labels=np.array([1, 0]),
        best=np.array([[1, 0], [1, 0]]),
        probabilities=np.array([[0.75, 0.25], [1.0, 1e-30]]),
        losses=np.array([0.287682, 69.0776]),
        classes={0: "crane", 1: "crane"},
    )
    write_rows(tmp_path / "rows.csv", rows)
    found = read_rows(tmp_path / "rows.csv")
    assert found.table() == rows.table()
    assert found.paths is not None
    assert list(found.paths) == odd
    header = ",".join(rows.columns)
    for content, reason in (("sample,path\n1,2\n", "'label'"), ("", "it has no rows"), (header, "it has no rows")):
        (tmp_path / "rows.csv").write_text(content)
        with pytest.raises(UserError, match=f"rows.csv is not a file of rows, or it is damaged: .*{reason}"):
            read_rows(tmp_path / "rows.csv")


def test_network_whose_outputs_are_not_numbers_has_no_rows(
    composed: Callable[..., Any], networks: Any, tmp_path: Path
) -> None:
    content = torch.load(networks[0], weights_only=True)
    last = [name for name in content["state_dict"] if name.endswith("bias")][-1]
    content["state_dict"][last][0] = torch.nan
    torch.save(content, tmp_path / "bad.ckpt")
    options = (f"checkpoint={tmp_path}/bad.ckpt", f"rows={tmp_path}/rows", "trainer=cpu")
    with pytest.raises(UserError, match=r"bad\.ckpt: the outputs of the network are not numbers \(NaN\) for 50 of 50"):
        evaluate(composed("evaluate", *options))
    assert not (tmp_path / "rows").exists()


def test_sheet_of_the_worst_images_has_the_whole_names_of_their_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []
    monkeypatch.setattr(row_files, "sheet", lambda *given: drawn.extend(given[-1]))
    monkeypatch.setattr(row_files, "_save", lambda path, image: None)
    rows = Rows(
        samples=np.array([0, 1]),
        paths=[f"val/n0302807{number}/ILSVRC2012_val_0000{number}.JPEG" for number in range(2)],
        labels=np.array([1, 0]),
        best=np.array([[0, 1], [0, 1]]),
        probabilities=np.array([[0.9, 0.1], [0.8, 0.2]]),
        losses=np.array([2.3026, 0.22314]),
        classes={0: "church", 1: "tench"},
    )
    lines = row_files.write_folder(tmp_path, rows, lambda sample: np.zeros((3, 8, 8), np.uint8), {})
    assert lines[1:] == ["images of tench that were taken for church: 1"]
    assert drawn == [
        "val/n03028070/ILSVRC2012_val_00000.JPEG, loss 2.3",
        "val/n03028071/ILSVRC2012_val_00001.JPEG, loss 0.223",
    ]


@pytest.mark.system
def test_three_ranks_write_the_same_files_as_one_process(script: Any, networks: Any, tmp_path: Path) -> None:
    for name, options in (("one", ["trainer=cpu"]), ("three", ["trainer=ddp_cpu", "trainer.devices=3"])):
        outs = ",".join(f"{tmp_path}/{name}.{suffix}" for suffix in ("json", "csv", "html"))
        given = (f"checkpoint={networks[0]}", f"against=[{networks[1]},{networks[0]}]")
        written = (f"rows={tmp_path / name}", f"out=[{outs}]")
        ended = script.run(*given, *written, *options, program=("src/evaluate.py",))
        assert (ended.returncode, ended.stderr) == (0, "")
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "three").iterdir())
    assert len(names) == 7
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "three" / name).read_bytes()
    for suffix in ("json", "csv", "html"):
        assert (tmp_path / f"one.{suffix}").read_bytes() == (tmp_path / f"three.{suffix}").read_bytes()
