"""Learning-rate range tests, `tune=lr`: the recorded curve, the same for any ranks, and what is left behind."""

import csv
import json
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alexnet_lab.commands.results import check_run
from alexnet_lab.errors import UserError
from alexnet_lab.pictures.lr_range import RangeTest
from alexnet_lab.runs.run import read_run, read_runs
from alexnet_lab.runs.summary import print_summary

# The loss diverges before the last step; each epoch of nine steps ends with a batch of two samples.
TEST = (
    *("tune=lr", "model=lenet", "model.activation=relu", "data=synthetic", "data.channels=1", "data.stored_size=28"),
    *("data.train_size=258", "data.batch_size=32", "data.val_size=8", "data.test_size=8", "trainer=cpu"),
    *("tune.start=1e-4", "tune.steps=40", "optimizer.lr=0.5", "scheduler=one_cycle", "seed=3"),
)


def rows(folder: Path) -> list[dict[str, float]]:
    with (folder / "lr.csv").open(newline="") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def result(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return content


@pytest.fixture(scope="module")
def ended(script: Any, tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess:
    folder = tmp_path_factory.mktemp("tests") / "one"
    ended: subprocess.CompletedProcess = script.run(*TEST, f"hydra.run.dir={folder}")
    ended.args = folder
    return ended


@pytest.fixture(scope="module")
def one(ended: subprocess.CompletedProcess) -> Path:
    assert ended.returncode == 0, ended.stderr
    folder: Path = ended.args
    return folder


def test_learning_rate_rises_by_the_same_factor_in_each_step_until_the_loss_diverges(one: Path) -> None:
    rates = [row["lr"] for row in rows(one)]
    assert rates == pytest.approx([1e-4 * 1e5 ** (step / 39) for step in range(len(rates))])
    assert 20 < len(rates) < 40
    found = result(one)["lr_test"]
    assert (found["steps"], found["diverged"]) == (len(rates), True)
    assert found["last_lr"] == pytest.approx(rates[-1])


def test_range_test_leaves_its_curve_and_nothing_of_a_training(one: Path) -> None:
    left = {path.name for path in one.iterdir() if not path.name.startswith(".")}
    assert left == {"config.yaml", "lr.csv", "lr.png", "metrics.csv", "result.json", "train.log"}
    assert result(one)["status"] == "finished"


def test_last_line_is_the_training_with_the_suggestion(ended: subprocess.CompletedProcess, one: Path) -> None:
    *_, table, picture, train = ended.stdout.splitlines()
    assert (table, picture) == (f"written: {one / 'lr.csv'}", f"written: {one / 'lr.png'}")
    words = shlex.split(train.partition(": ")[2])
    kept = [word for word in TEST if not word.startswith(("tune", "optimizer.lr"))]
    assert words[2:] == [*kept, f"optimizer.lr={result(one)['lr_test']['suggestion']}"]


@pytest.mark.parametrize(
    ("ranks", "accumulate"),
    [(2, 1), pytest.param(3, 1, marks=pytest.mark.system), pytest.param(1, 3, marks=pytest.mark.system)],
)
def test_curve_and_suggestion_do_not_depend_on_ranks_and_micro_batches(
    ranks: int, accumulate: int, one: Path, script: Any, tmp_path: Path
) -> None:
    shared = ("trainer=ddp_cpu", f"trainer.devices={ranks}") if ranks > 1 else ()
    more = (*shared, f"trainer.accumulate_grad_batches={accumulate}", f"hydra.run.dir={tmp_path}/run")
    several = script.run(*TEST, *more)
    assert several.returncode == 0, several.stderr
    folder = tmp_path / "run"
    assert result(folder)["world_size"] == ranks
    assert len(rows(folder)) == len(rows(one))
    # The last ones are those of weights that have diverged, and with them the rounding errors.
    stable = [row["train/loss_step"] for row in rows(one)][:-4]
    assert [row["train/loss_step"] for row in rows(folder)][:-4] == pytest.approx(stable, rel=1e-3)
    assert stable[:20] == pytest.approx([row["train/loss_step"] for row in rows(folder)][:20], rel=2e-5)
    assert result(folder)["lr_test"]["suggestion"] == result(one)["lr_test"]["suggestion"]


def test_range_tests_are_no_runs_of_a_comparison(one: Path, trained_run: Any) -> None:
    assert [run.source for run in read_runs([str(one), str(trained_run.folder)])] == [str(trained_run.folder)]
    with pytest.raises(UserError, match="only learning-rate range tests"):
        read_runs([str(one)])
    with pytest.raises(UserError, match="a learning-rate range test, not a training run"):
        check_run(one, one)


def test_interrupted_range_test_is_summarised_without_a_suggestion(
    one: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped = {"steps": 5, "last_lr": 1e-5, "diverged": False, "suggestion": None}
    (tmp_path / "config.yaml").write_text((one / "config.yaml").read_text())
    text = json.dumps(result(one) | {"status": "interrupted", "reason": "signal", "lr_test": stopped})
    (tmp_path / "result.json").write_text(text)
    assert read_run(tmp_path).is_range_test
    print_summary(tmp_path)
    printed = capsys.readouterr().out
    assert "interrupted (signal)" in printed
    assert "│ 0.0001 to 1e-05 " in printed  # neither diverged nor at tune.end
    assert "train with it" not in printed


def test_suggestion_of_a_loss_that_never_fell_below_guessing_says_so(
    one: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = "the loss did not fall clearly below that of guessing (2.303) before it rose"
    (tmp_path / "config.yaml").write_text((one / "config.yaml").read_text())
    for fell in (True, False):
        lr_test = result(one)["lr_test"] | {"diverged": False, "fell_below_guessing": fell, "guessing": 2.3026}
        (tmp_path / "result.json").write_text(json.dumps(result(one) | {"lr_test": lr_test}))
        print_summary(tmp_path)
        printed = capsys.readouterr().out
        assert (f"{before}: the suggestion is where it begins to rise" in printed) != fell
        assert printed.splitlines()[-1].startswith("train with it: ")


@pytest.mark.parametrize("losses", [[2.6, 2.3, 2.0, 9.0], [2.6, 2.3, 2.2, 3.0]])
def test_picture_shows_the_loss_of_guessing_and_says_whether_losses_are_cut_off(losses: list[float]) -> None:
    test = RangeTest(Path(), 1e-3, 1.0, 4)
    panel = test._panel([1e-3, 1e-2, 1e-1, 1.0], losses, losses, 2.303)
    assert (panel.lines[-1].label, {*panel.lines[-1].y}) == ("guessing (2.303)", {2.303})
    assert panel.y_range[1] is not None
    assert ("cut off" in panel.y) == (panel.y_range[1] < max(losses)) == (max(losses) > 2 * losses[0])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("tune.start=0.1", "tune.end=0.01"), "tune.end: 0.01 does not fit: it must be above tune.start"),
        (("tune.start=0",), "tune.start: 0 does not fit: Input should be greater than 0"),
        (("tune.steps=5",), "tune.steps: 5 does not fit: Input should be greater than or equal to 20"),
    ],
)
def test_range_of_the_wrong_kind_is_refused_before_training(
    overrides: tuple[str, ...], message: str, settings: Callable[..., Any], refusal: Callable[..., str]
) -> None:
    assert refusal(settings(*TEST, *overrides)) == f"error: {message}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("resume=FOLDER",), "a range test starts from new weights; omit resume, or tune=lr"),
        (("-m", "seed=0,1"), "tune=lr is one range test, not a sweep: start it once for each network"),
    ],
)
def test_range_test_of_a_run_to_continue_or_of_a_sweep_is_refused(
    words: tuple[str, ...], message: str, trained_run: Any, script: Any, tmp_path: Path
) -> None:
    words = tuple(word.replace("FOLDER", str(trained_run.folder)) for word in words)
    refused = script.run("tune=lr", "model=lenet", "logger=none", *words, f"hydra.sweep.dir={tmp_path}/sweep")
    assert refused.returncode == 2
    assert message in refused.stderr
    assert not (tmp_path / "sweep").exists()
