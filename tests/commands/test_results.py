import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from alexnet_lab import places
from alexnet_lab.commands.results import add, recorded_runs, results
from alexnet_lab.errors import UserError
from alexnet_lab.report.ablations import read_jobs
from alexnet_lab.report.ensembles import add_ensemble, read_ensembles
from alexnet_lab.report.results_page import page, read_recipes
from alexnet_lab.runs.groups import recipe_groups
from alexnet_lab.runs.metric_rows import learning_rates
from alexnet_lab.runs.run import Run

ROOT = Path(__file__).parents[2]
EXPERIMENTS = sorted((ROOT / "conf" / "experiment").glob("*.yaml"))


def a_run(seed: int, top1: float, *overrides: str, **config) -> Run:
    recipe = {
        "name": "small",
        "source": "a book",
        "published": {"test/top1": {"value": 0.8, "deviation": 0.02, "range": [0.7, 0.9]}},
    }
    settings = {
        "model": {"_target_": "alexnet_lab.models.lenet.lenet"},
        "data": {"name": "fashion_mnist", "dir": "data/fashion_mnist", "seed": seed},
        "run": f"s{seed}",
        "seed": seed,
        "folder": None,
        "overrides": ["experiment=small", *overrides, f"seed={seed}", "logger=none", f"run=s{seed}"],
        "recipe": recipe,
        **config,
    }
    result = {
        "final": {"test/top1": top1, "test/top5": 0.99},
        "seconds": 60.0 + seed,
        "world_size": 1,
        "hardware": {"accelerator": "cpu", "device": "a processor", "cores": 2},
        "git": {"commit": "0123456789abcdef", "modified": False},
        "versions": {"python": "3.11", "torch": "2.14.1", "lightning": "2.6.6"},
    }
    return Run(f"s{seed}", f"runs/s{seed}", settings, result)


@pytest.fixture
def copied(trained_run, tmp_path) -> Path:
    """A copy of the run's folder that a test may change."""
    folder = tmp_path / "small"
    shutil.copytree(trained_run.folder, folder, ignore=shutil.ignore_patterns("checkpoints"))
    return folder


def change(folder: Path, **entries) -> None:
    config = OmegaConf.load(folder / "config.yaml")
    OmegaConf.save(OmegaConf.merge(config, entries), folder / "config.yaml")


def test_committed_page_matches_the_recorded_runs() -> None:
    assert (ROOT / "docs" / "results.md").read_text() == page(
        recorded_runs(ROOT / "docs" / "runs"), read_recipes(ROOT / "conf"), read_ensembles(ROOT / "docs" / "runs")
    )


def test_recorded_runs_contain_no_absolute_path() -> None:
    for path in (ROOT / "docs" / "runs").glob("*/*/*"):
        assert not re.search(r"(^|[\s='\"\[,])/\w", path.read_text()), path


def test_row_shows_mean_and_standard_deviation_over_the_seeds() -> None:
    text = page([a_run(0, 0.80), a_run(1, 0.82), a_run(2, 0.84)], {})
    row = "| small | lenet | fashion_mnist | centre | 3 | 0.8 +- 0.02 | 0.8200 +- 0.0200 |  | 0.9900 +- 0.0000 |"
    assert row in text.splitlines()
    assert "    python src/train.py -m experiment=small seed=0,1,2" in text.splitlines()
    assert "- Published test/top1: 0.8 +- 0.02, from 0.7 to 0.9" in text
    assert "- Time: 61 +- 1 s per run" in text
    assert "- Revision: 0123456789ab\n" in text
    assert "a processor, 2 cores" in text


def test_different_settings_make_another_row_and_different_folders_do_not() -> None:
    other_data = {"name": "fashion_mnist", "dir": "elsewhere", "seed": 1}
    runs = [a_run(0, 0.8), a_run(1, 0.9, data=other_data), a_run(2, 0.5, "optimizer.lr=0.1", optimizer={"lr": 0.1})]
    rows = [line for line in page(runs, {}).splitlines() if line.startswith("| small")]
    assert len(rows) == 2
    assert rows[0].startswith("| small | lenet | fashion_mnist | centre | 2 | 0.8 +- 0.02 | 0.8500 +- 0.0707 |")
    assert rows[1].startswith("| small optimizer.lr=0.1 | lenet | fashion_mnist | centre | 1 | 0.8 +- 0.02 | 0.5000 |")


def test_settings_without_influence_on_training_make_no_other_row() -> None:
    data = {"name": "fashion_mnist", "dir": "data/fashion_mnist", "seed": 1}
    watched = {"data": {**data, "workers": 2}, "callbacks": {"pictures": {"images": 400}}, "hang_timeout": 600}
    bare = {"data": {**data, "workers": 4}, "callbacks": {"pictures": None}, "hang_timeout": None}
    words = ("callbacks.pictures=null", "data.workers=4", "data.dir=PATH", "hang_timeout=null", "optimizer.lr=0.1")
    runs = [a_run(0, 0.8, "optimizer.lr=0.1", **watched), a_run(1, 0.9, *words, **bare)]
    (row,) = [line for line in page(runs, {}).splitlines() if line.startswith("| small")]
    assert row.startswith("| small optimizer.lr=0.1 | lenet | fashion_mnist | centre | 2 |")
    (row,) = [line for line in page(runs[1:], {}).splitlines() if line.startswith("| small")]
    assert row.startswith("| small optimizer.lr=0.1 | lenet | fashion_mnist | centre | 1 |")
    assert len(recipe_groups([runs[0], a_run(1, 0.9, **watched | {"callbacks": {"ema": {"decay": 0.9}}})])) == 2


def test_null_setting_that_older_runs_lack_makes_no_other_row() -> None:
    data = {"name": "fashion_mnist", "dir": "data/fashion_mnist", "seed": 1}
    later = a_run(1, 0.9, data={**data, "colour_until_epoch": None})
    assert len(recipe_groups([a_run(0, 0.8), later])) == 1
    assert len(recipe_groups([a_run(0, 0.8), a_run(1, 0.9, data={**data, "colour_until_epoch": 67})])) == 2


def test_run_with_pictures_belongs_to_the_recipe_of_older_runs_without() -> None:
    before = a_run(0, 0.8, callbacks={"progress": {}})
    after = a_run(1, 0.9, callbacks={"progress": {}, "pictures": {"folder": "PATH"}})
    assert len(recipe_groups([before, after])) == 1
    assert len(recipe_groups([before, a_run(1, 0.9, callbacks={"early_stopping": {"patience": 2}})])) == 2


def test_added_run_keeps_its_metrics_and_loses_its_paths(copied, trained_run, tmp_path) -> None:
    change(copied, overrides=["data.dir=/home/me/data", "note=[/a/b,c]"])
    target = add(copied, tmp_path / "runs")
    assert target == tmp_path / "runs" / "small" / "small"
    (run,) = recorded_runs(tmp_path / "runs")
    assert run.config["overrides"] == ["data.dir=PATH", "note=[PATH,c]"]
    assert run.config["folder"] is None
    assert run.result["final"] == trained_run.result["final"]
    assert str(tmp_path) not in (target / "config.yaml").read_text() + (target / "result.json").read_text()
    top1 = trained_run.result["final"]["test/top1"]
    assert f"| {top1:.4f} |" in page([run], {})


def test_job_of_a_sweep_is_recorded_under_its_sweep_and_number(copied, tmp_path) -> None:
    job = copied.rename(tmp_path / "3")
    assert add(job, tmp_path / "runs").name == "small-3"


def test_second_run_of_a_seed_is_refused_and_the_same_run_is_replaced(copied, tmp_path) -> None:
    add(copied, tmp_path / "runs")
    add(copied, tmp_path / "runs")
    assert len(recorded_runs(tmp_path / "runs")) == 1
    change(copied, run="again")
    with pytest.raises(UserError, match="seed 0 is already recorded, as small"):
        add(copied.rename(tmp_path / "again"), tmp_path / "runs")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"recipe": None}, "not a run of an experiment; train it with experiment=NAME"),
        ({"test_on": "none"}, "not tested on the whole test split"),
        ({"trainer": {"limit_test_batches": 1}}, "not tested on the whole test split"),
    ],
)
def test_run_without_a_valid_test_is_refused(copied, tmp_path, entries, message) -> None:
    change(copied, **entries)
    with pytest.raises(UserError, match=message):
        add(copied, tmp_path / "runs")


def test_run_that_has_not_finished_is_refused(copied, tmp_path) -> None:
    result = json.loads((copied / "result.json").read_text())
    (copied / "result.json").write_text(json.dumps({**result, "status": "interrupted"}))
    with pytest.raises(UserError, match="the run is interrupted; only finished ones are recorded"):
        add(copied, tmp_path / "runs")
    (copied / "result.json").unlink()
    killed = r"the run is failed: the process was killed \(out of memory\?\); only finished ones are recorded"
    with pytest.raises(UserError, match=killed):
        add(copied, tmp_path / "runs")


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_experiment_has_its_own_name_and_source(path) -> None:
    recipe = OmegaConf.load(path).recipe
    assert recipe.name == path.stem
    assert recipe.source


def test_command_records_runs_and_writes_the_page(composed, copied, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(places, "CHECKOUT", tmp_path)
    results(composed("results", f"add={copied}"))
    again = tmp_path / "again"
    shutil.copytree(copied, again)
    change(again, run="again", seed=1)
    results(composed("results", f"add=[{again}]"))
    runs = recorded_runs(tmp_path / "docs" / "runs")
    assert [Path(run.source).name for run in runs] == ["small", "again"]
    assert (tmp_path / "docs" / "results.md").read_text() == page(runs, read_recipes(ROOT / "conf"))


def test_lower_accuracy_of_ten_views_is_compared_with_the_standard_error(copied, tmp_path) -> None:
    figures = {"checkpoint": "last.ckpt", "split": "test", "protocol": "ten_crop", "images": 100}
    (copied / "ten_crop.json").write_text(json.dumps(figures | {"test/top1": 0.1, "test/top5": 0.0}))
    (copied / "metrics.csv").write_text("epoch,step,test/top1,test/top5\n2,8,0.12,0.5\n")
    add(copied, tmp_path / "runs")
    lines = [line for line in page(recorded_runs(tmp_path / "runs"), {}).splitlines() if "ten views classify" in line]
    seed = recorded_runs(tmp_path / "runs")[0].config["seed"]
    assert lines == [
        f"- top1, seed {seed}: ten views classify 2 of 100 images fewer correctly than the centre crop, "
        "within the standard error of 0.0300",
        f"- top5, seed {seed}: ten views classify 50 of 100 images fewer correctly than the centre crop, "
        "beyond the standard error of 0.0000",
    ]


ENSEMBLE = {
    "checkpoint": ["/elsewhere/a.ckpt", "/elsewhere/b.ckpt"],
    "split": "test",
    "protocol": "ten_crop",
    "images": 100,
    "data": "imagenette",
    "networks": [{"run": "a", "network": "lenet", "top1": 0.5}, {"run": "b", "network": "caffenet", "top1": 0.625}],
    "whole_split": True,
    "test/top1": 0.75,
    "test/top5": 0.875,
}


def test_recorded_ensemble_is_listed_after_the_published_ones(composed, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(places, "CHECKOUT", tmp_path)
    Path("both.json").write_text(json.dumps(ENSEMBLE))
    results(composed("results", "add=both.json"))
    lines = Path("docs/results.md").read_text().partition("## Ensembles")[2].partition("##")[0].splitlines()
    assert [line for line in lines if line.startswith("| ")][1:] == [
        "| 5 x alexnet_original | imagenet | ten | 0.619 | not measured here | 0.836 | not measured here |  |",
        "| 7 x alexnet_original, pre-trained on ImageNet of Fall 2011 | imagenet | ten "
        "| 0.633 | not measured here | 0.846 | not measured here |  |",
        "| lenet, caffenet | imagenette | ten |  | 0.7500 |  | 0.8750 | 0.5000, 0.6250 |",
    ]
    assert "elsewhere" not in Path("docs/runs/ensembles/both.json").read_text()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"split": "val"}, "not a result of evaluate for several checkpoints on the test split"),
        ({"networks": []}, "not a result of evaluate for several checkpoints on the test split"),
        ({"whole_split": False}, "not measured on the whole test split"),
    ],
)
def test_file_that_is_not_a_tested_ensemble_is_refused(tmp_path, wrong, message) -> None:
    (tmp_path / "x.json").write_text(json.dumps(ENSEMBLE | wrong))
    with pytest.raises(UserError, match=message):
        add_ensemble(tmp_path / "x.json", tmp_path / "runs")
    with pytest.raises(UserError, match="there is no such file"):
        add_ensemble(tmp_path / "y.json", tmp_path / "runs")
    (tmp_path / "z.json").write_text("[1]")
    with pytest.raises(UserError, match=r"z\.json is damaged: it is not a JSON object"):
        add_ensemble(tmp_path / "z.json", tmp_path / "runs")


def test_metrics_of_ten_views_are_recorded_with_the_run(copied, tmp_path) -> None:
    figures = {"checkpoint": str(copied / "checkpoints" / "last.ckpt"), "split": "test", "protocol": "ten_crop"}
    measured = figures | {"images": 100, "test/loss": 2.0, "test/top1": 0.875, "test/top5": 0.9375}
    (copied / "ten_crop.json").write_text(json.dumps(measured))
    add(copied, tmp_path / "runs")
    (run,) = recorded_runs(tmp_path / "runs")
    assert run.ten_crop == measured | {"checkpoint": "last.ckpt"}
    text = page([run], {})
    assert " | lenet | synthetic | ten | 1 |  | 0.8750 |  | 0.9375 |\n" in text
    assert "- Measured ten_crop/top1 by seed: 0.8750" in text


def test_learning_rate_that_falls_in_steps_is_listed(copied, tmp_path) -> None:
    rows = [
        "epoch,step,lr,val/top1",
        "0,50,0.01,",
        "0,100,,0.5",
        "2,250,0.01,",
        "3,350,0.001,",
        "5,550,1e-4,",
        "6,600,,0.7",
    ]
    (copied / "metrics.csv").write_text("\n".join(rows) + "\n")
    add(copied, tmp_path / "runs")
    (run,) = recorded_runs(tmp_path / "runs")
    assert learning_rates(run.rows) == [(1, 0.01), (4, 0.001), (6, 1e-4)]
    assert (f"- Learning rate of seed {run.config['seed']}: 0.01, 0.001 from epoch 4, 0.0001 from epoch 6\n") in page(
        [run], {}
    )
    rows += [f"{epoch},{epoch}00,{epoch}," for epoch in range(7, 12)]
    (copied / "metrics.csv").write_text("\n".join(rows) + "\n")
    add(copied, tmp_path / "runs")
    assert "Learning rate" not in page(recorded_runs(tmp_path / "runs"), {})


def test_recording_a_run_again_removes_ten_crop_results_of_older_weights(copied, tmp_path) -> None:
    figures = {"checkpoint": "a/last.ckpt", "split": "test", "protocol": "ten_crop", "test/top1": 0.5, "images": 100}
    (copied / "ten_crop.json").write_text(json.dumps(figures))
    add(copied, tmp_path / "runs")
    (copied / "ten_crop.json").unlink()
    add(copied, tmp_path / "runs")
    (run,) = recorded_runs(tmp_path / "runs")
    assert run.ten_crop is None


@pytest.mark.parametrize(
    "wrong", [{"protocol": "center"}, {"split": "val"}, {"checkpoint": "a/best.ckpt"}, {"images": 4}]
)
def test_other_metrics_are_not_accepted_as_ten_crop_results(copied, tmp_path, wrong) -> None:
    figures = {"checkpoint": "a/last.ckpt", "split": "test", "protocol": "ten_crop", "test/top1": 0.5, "images": 100}
    (copied / "ten_crop.json").write_text(json.dumps(figures | wrong))
    with pytest.raises(UserError, match=r"must have protocol ten_crop, split test, checkpoint last\.ckpt, images 100"):
        add(copied, tmp_path / "runs")


@pytest.mark.parametrize(("content", "message"), [("{", "damaged"), ("{}", "must have")])
def test_damaged_ten_crop_file_is_reported_in_one_line(copied, tmp_path, content, message) -> None:
    (copied / "ten_crop.json").write_text(content)
    with pytest.raises(UserError, match=message):
        add(copied, tmp_path / "runs")


def test_experiment_without_a_run_shows_only_published_values() -> None:
    lines = page([], read_recipes(ROOT / "conf")).splitlines()
    told = "| krizhevsky_2012 | alexnet_original | imagenet | ten | 0 | 0.593 | not measured here | 0.818 |"
    assert f"{told} not measured here |" in lines
    told = "| one_weird_trick_2014 | alexnet_torchvision | imagenet | centre | 0 | 0.56522 | not measured here |"
    assert f"{told} 0.79066 | not measured here |" in lines
    experiments = {path.stem for path in EXPERIMENTS}
    assert {line.split(" | ")[0].removeprefix("| ") for line in lines if "not measured" in line} >= experiments


def test_run_of_an_experiment_replaces_the_not_measured_row() -> None:
    recipe = {"name": "small", "published": {}, "network": "lenet", "data": "fashion_mnist"}
    assert "| small | lenet | fashion_mnist | centre | 0 |" in page([], {"small": recipe})
    assert "not measured here" not in page([a_run(0, 0.8)], {"small": recipe})


LENET = {"_target_": "alexnet_lab.models.lenet.lenet", "activation": "relu", "norm": "none"}
# The part of the configuration that the ablations change.
WHOLE = {
    "model": {
        "_target_": "alexnet_lab.models.alexnet_original.alexnet_original",
        "norm": "lrn",
        "activation": "relu",
        "towers": 2,
        "dropout": 0.5,
    },
    "data": {"name": "imagenette", "crop": "random", "flip": 0.5, "colour": "source"},
}


def part_of(seed: int, top1: float, *overrides: str, **changes) -> Run:
    config = {group: {**WHOLE[group], **changes.get(group, {})} for group in WHOLE}
    return a_run(seed, top1, *overrides, **config)


def table_of(runs: list[Run]) -> dict[str, list[str]]:
    """The ablations' rows by job."""
    text = page(runs, read_recipes(ROOT / "conf")).partition("## Ablations")[2].partition("##")[0]
    cells = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {row[0]: row[1:] for row in cells}


def test_ablation_is_the_difference_at_the_same_seed_next_to_the_papers() -> None:
    runs = [part_of(seed, top1) for seed, top1 in enumerate([0.80, 0.82, 0.90])]
    without = {"model": {"norm": "none"}}
    # As a job of a sweep and as a single run; seed 5 has no full recipe to compare with.
    runs += [part_of(0, 0.79, "model.norm=none", **without), part_of(1, 0.80, "sweep=ablations_2012", **without)]
    runs += [part_of(5, 0.10, "model.norm=none", **without), part_of(2, 0.10, "model.norm=none", **without)]
    runs[-1].result["final"] = {}  # not tested
    table = table_of(runs)
    assert table["no_lrn"][:3] == ["2", "-0.0137", "-0.0150 +- 0.0071"]
    assert table["no_dropout"][:3] == ["0", "", "not measured here"]
    assert set(table) == {"job", *(name for name in read_jobs() if name != "baseline")}


def test_run_without_one_part_is_not_the_baseline_of_a_run_without_two() -> None:
    no_colour = {"data": {"colour": "off"}}
    nothing = {"data": {"colour": "off", "crop": "centre", "flip": 0.0}}
    runs = [part_of(0, 0.7, "data.colour=off", **no_colour), part_of(0, 0.5, "data.crop=centre", **nothing)]
    assert all(cells[0] in ("0", "seeds") for cells in table_of(runs).values())
    table = table_of([part_of(0, 0.8), *runs])
    assert table["no_colour_noise"][2] == "-0.1000"
    assert table["no_augmentation"][2] == "-0.3000"
    assert table["no_colour_noise"][-1] == "more than .01 of top-1 lost"


def test_networks_without_a_part_of_the_paper_have_no_ablations() -> None:
    half = {"_target_": "alexnet_lab.models.alexnet_half.alexnet_half_v2", "activation": "relu", "norm": "none"}
    changes = [{}, {"activation": "tanh"}, {"activation": "sigmoid"}, {"norm": "lrn"}, {"norm": "batch"}]
    assert all(cells[0] in ("0", "seeds") for cells in table_of(runs_of(half, changes)).values())
    original = WHOLE["model"]
    assert table_of(runs_of(original, changes[:3]))["tanh"][0] == "1"
    assert all(cells[0] in ("0", "seeds") for cells in table_of(runs_of(original, changes[1:3])).values())


def runs_of(model: dict[str, Any], changes: list[dict[str, str]]) -> list[Run]:
    """A run of the network with each of the changes."""
    return [
        a_run(0, 0.8, *(f"model.{key}={value}" for key, value in one.items()), model={**model, **one})
        for one in changes
    ]


def trained(seed: int, top1: float, *train: float, **model: str) -> Run:
    run = a_run(seed, top1, model=LENET | model, optimizer={"lr": 0.1})
    return replace(run, rows=[{"epoch": epoch, "step": 9, "train/top1": value} for epoch, value in enumerate(train)])


def test_activations_are_sorted_by_their_mean_and_have_the_epochs_to_a_training_accuracy() -> None:
    sigmoid, other = {"activation": "sigmoid"}, {"activation": "tanh"}
    runs = [trained(0, 0.9, 0.6, 0.75, 0.8), trained(1, 0.5, 0.4, 0.5, 0.7), trained(0, 0.8, 0.2, 0.3, 0.5, **sigmoid)]
    untested = trained(0, 0.8, 0.9, **other)
    untested.result["final"] = {}
    text = page([*runs, untested], {}).partition("## Activations")[2].partition("\n## ")[0]
    assert [line for line in text.splitlines() if line.startswith("| ")][1:] == [
        "| sigmoid | none | 0.1 | a processor | 1 | 0.8000 | 0.2000 | 0.5000 | > 3 |",
        "| relu | none | 0.1 | a processor | 2 | 0.7000 +- 0.2828 | 0.5000 +- 0.1414 | 0.7500 +- 0.0707 | 2, > 3 |",
    ]
    assert "## Activations" not in page(runs[:2], {})


def test_command_of_a_sweep_job_names_its_experiment() -> None:
    run = part_of(0, 0.8, "sweep=ablations_2012", "model.norm=none", model={"norm": "none"})
    run.config["overrides"].remove("experiment=small")
    assert "    python src/train.py experiment=small model.norm=none seed=0" in page([run], {}).splitlines()
