"""Which settings differ, what they are called, and which runs are one row."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.runs.recorded_runs import settings as recorded

from alexnet_lab.runs.groups import group_runs
from alexnet_lab.runs.run import Run
from alexnet_lab.runs.settings import differing, short_names, telling
from alexnet_lab.runs.settings import settings as settings_of


def a_run(name: str, top1: float = 0.8, status: Any = "finished", **config: Any) -> Run:
    return Run(name, name, status, recorded(**config), final={"test/top1": top1})


def test_settings_are_flat_without_what_belongs_to_one_run() -> None:
    run = a_run("a", run="a", folder="/x", overrides=["a"], recipe={"name": "r"}, checkpoints={"keep": True})
    assert settings_of(run) == {
        "model._target_": "lenet",
        "model.dropout": "0",
        "data.batch_size": "128",
        "optimizer._target_": "SGD",
        "optimizer._partial_": "true",
        "optimizer.lr": "0.1",
        "optimizer.momentum": "0.9",
        "trainer._target_": "Trainer",
        "trainer.max_epochs": "3",
        "trainer.accelerator": "auto",
        "seed": "0",
        "data._target_": "fashion_mnist",
    }


def test_whole_float_and_integer_are_the_same_setting() -> None:
    assert settings_of(a_run("a", lr=1)) == settings_of(a_run("b", lr=1.0))
    assert settings_of(a_run("a", mean=[0, 0.5])) == settings_of(a_run("b", mean=[0.0, 0.5]))


def test_only_differing_settings_are_told_and_not_what_one_network_alone_has() -> None:
    known = [{"a": "1", "b": "2", "model.towers": "2"}, {"a": "1", "b": "3"}, {"a": "1", "b": "3", "old": "x"}]
    assert differing(known) == ["b", "model.towers", "old"]
    assert telling(known) == ["b"]


def test_names_are_as_short_as_they_are_unambiguous() -> None:
    keys = ["model._target_", "optimizer._target_", "optimizer.lr", "a.b.size", "c.size", "seed"]
    assert list(short_names(keys).values()) == ["model", "optimizer", "lr", "b.size", "c.size", "seed"]


def test_seeds_of_the_same_settings_are_one_group_with_mean_and_deviation() -> None:
    runs = [a_run(f"lenet-s{seed}", 0.80 + 0.02 * seed, seed=seed) for seed in range(3)]
    (group,) = group_runs(runs)
    assert group.name == "lenet-s*"
    assert group.settings["seed"] == "0,1,2"
    assert group.samples["test/top1"].mean == pytest.approx(0.82)
    assert group.samples["test/top1"].deviation == pytest.approx(0.02)
    assert len(group_runs(runs, by_seed=False)) == 3


def test_other_settings_and_repeated_seeds_make_other_groups() -> None:
    runs = [a_run("a0", seed=0), a_run("a1", seed=1), a_run("b0", seed=0, lr=0.2), a_run("a0-again", seed=0)]
    assert [group.name for group in group_runs(runs)] == ["a*", "b0", "a0-again"]


def test_runs_that_did_not_finish_are_averaged_with_none() -> None:
    runs = [a_run("a0", seed=0), a_run("a1", 0.1, "failed", seed=1), a_run("a2", 0.2, "unfinished", seed=2)]
    assert [[run.name for run in group.runs] for group in group_runs(runs)] == [["a0"], ["a1"], ["a2"]]


def test_no_two_groups_have_one_name() -> None:
    runs = [a_run(f"x-{number}", seed=number % 2, lr=number // 2 + 1) for number in range(4)]
    assert [group.name for group in group_runs(runs)] == ["x-0 and 1 more", "x-2 and 1 more"]
    assert [group.name for group in group_runs([a_run("one", seed=0), a_run("two", seed=1)])] == ["one and 1 more"]
    # W&B has a folder for each part of a run that was continued offline.
    assert [group.name for group in group_runs([a_run("same"), a_run("same", lr=2), a_run("same", lr=3)])] == [
        "same",
        "same (2)",
        "same (3)",
    ]


def test_failed_attempt_at_a_seed_does_not_part_the_finished_runs() -> None:
    runs = [a_run("a0", status="failed", seed=0), a_run("a0-again", seed=0), a_run("a1", seed=1)]
    assert [[run.name for run in group.runs] for group in group_runs(runs)] == [["a0"], ["a0-again", "a1"]]


def test_runs_of_other_names_folders_and_sweeps_that_differ_in_the_seed_are_one_group(
    settings: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    runs = []
    for seed in range(3):
        config = settings("model=lenet", f"seed={seed}", f"run=r{seed}")
        # As a run records it: the folder is known before interpolations are resolved.
        config["callbacks"]["pictures"]["folder"] = f"{tmp_path}/r{seed}/pictures"
        config |= {"folder": f"{tmp_path}/r{seed}", "sweep_name": "first" if seed else None}
        runs.append(Run(f"r{seed}", f"r{seed}", "finished", config))
    assert [group.name for group in group_runs(runs)] == ["r*"]


def test_run_without_pictures_has_the_settings_of_one_with_them(settings: Callable[..., dict[str, Any]]) -> None:
    without = settings("callbacks.pictures=null", "seed=1")
    assert len(group_runs([a_run("a"), Run("b", "b", "finished", settings()), Run("c", "c", "finished", without)])) == 2
