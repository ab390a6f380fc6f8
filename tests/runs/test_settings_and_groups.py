"""Which settings differ, what they are called, and which runs are one row."""

import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from tests.runs.recorded_runs import settings as recorded
from tests.runs.recorded_runs import write_run

from alexnet_lab.config.by_device import Device, resolved
from alexnet_lab.config.schema import CallbackSettings, Effect, RunSettings, default, effect
from alexnet_lab.runs.groups import differing, group_runs, recipe_groups, short_names, telling
from alexnet_lab.runs.groups import settings as settings_of
from alexnet_lab.runs.recipe import changes, command, not_comparable
from alexnet_lab.runs.run import Run, read_run

FINISHED = {"status": "finished"}


def a_run(name: str, top1: float = 0.8, status: Any = "finished", **config: Any) -> Run:
    return Run(name, name, recorded(**config), {"status": status, "final": {"test/top1": top1}})


def test_settings_are_flat_without_what_belongs_to_one_run() -> None:
    run = a_run("a", run="a", folder="/x", overrides=["a"], recipe={"name": "r"}, checkpoints={"keep": True})
    assert settings_of(run.config) == {
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
    assert settings_of(a_run("a", lr=1).config) == settings_of(a_run("b", lr=1.0).config)
    assert settings_of(a_run("a", mean=[0, 0.5]).config) == settings_of(a_run("b", mean=[0.0, 0.5]).config)


def test_only_differing_settings_are_listed_and_no_options_of_a_single_network() -> None:
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


def test_unfinished_runs_are_not_averaged() -> None:
    runs = [a_run("a0", seed=0), a_run("a1", 0.1, "failed", seed=1), a_run("a2", 0.2, "unfinished", seed=2)]
    assert [[run.name for run in group.runs] for group in group_runs(runs)] == [["a0"], ["a1"], ["a2"]]


def test_group_names_are_unique() -> None:
    runs = [a_run(f"x-{number}", seed=number % 2, lr=number // 2 + 1) for number in range(4)]
    assert [group.name for group in group_runs(runs)] == ["x-0 and 1 more", "x-2 and 1 more"]
    assert [group.name for group in group_runs([a_run("one", seed=0), a_run("two", seed=1)])] == ["one and 1 more"]
    # W&B has a folder for each part of a run that was continued offline.
    assert [group.name for group in group_runs([a_run("same"), a_run("same", lr=2), a_run("same", lr=3)])] == [
        "same",
        "same (2)",
        "same (3)",
    ]


def test_failed_attempt_does_not_split_the_finished_runs() -> None:
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
        runs.append(Run(f"r{seed}", f"r{seed}", config, FINISHED))
    assert [group.name for group in group_runs(runs)] == ["r*"]


def marked(model: type[BaseModel] = RunSettings, prefix: str = "") -> Iterator[tuple[str, Effect]]:
    """Every key of the schema with its effect, the keys of the groups included."""
    for name, field in model.model_fields.items():
        key = f"{prefix}{name}"
        yield key, effect(key)
        kind = field.annotation
        if effect(key) in (Effect.RESULT, Effect.SPEED) and isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from marked(kind, f"{key}.")


LEAVES = [(key, mark) for key, mark in marked() if key not in ("model", "data", "trainer", "callbacks", "seed")]


def two_runs_that_differ_in(key: str) -> tuple[Run, Run]:
    """With seeds of their own, the second with another value of `key`, and the override that sets it."""
    runs = []
    for seed in range(2):
        config: dict[str, Any] = {
            **recorded(seed=seed, recipe={"name": "r"}, run=f"r{seed}"),
            "overrides": ["experiment=r", f"{key}=other", f"seed={seed}"] if seed else [],
        }
        *groups, name = key.split(".")
        node = config
        for group in groups:
            node = node.setdefault(group, {})
        if seed and key not in ("overrides", "recipe", "run"):
            node[name] = "other"
        runs.append(Run(f"r{seed}", f"r{seed}", config, FINISHED))
    return runs[0], runs[1]


@pytest.mark.parametrize(("key", "mark"), LEAVES, ids=[key for key, _ in LEAVES])
def test_compare_and_results_group_by_the_marks_of_the_schema(key: str, mark: Effect) -> None:
    runs = two_runs_that_differ_in(key)
    one = mark in (Effect.NONE, Effect.COPY)
    assert (len(group_runs(runs)) == 1) is (len(recipe_groups(runs)) == 1) is one
    assert changes(runs[1].config) == ([] if one else [f"{key}=other"])
    assert not_comparable(runs[1].config) == ([f"{key}=other"] if mark is Effect.RESULT else [])


def test_marks_are_those_that_were_agreed() -> None:
    marks = [(key, mark) for key, mark in marked() if not key.startswith("callbacks.")]
    by_mark = {mark: {key for key, found in marks if found is mark} for mark in Effect}
    assert by_mark[Effect.NONE] == {
        *("run", "folder", "overrides", "resume", "sweep_name", "logger", "checkpoints", "hang_timeout", "recipe"),
        *("data.dir", "data.workers", "data.eval_batch_size"),
        *("trainer.log_every_n_steps", "trainer.profiler", "trainer.max_time"),
    }
    assert by_mark[Effect.SPEED] == {
        *("trainer", "compile", "channels_last"),
        *(f"trainer.{key}" for key in ("accelerator", "devices", "num_nodes", "strategy", "accumulate_grad_batches")),
    }
    assert effect("callbacks.progress") is effect("callbacks.pictures") is Effect.NONE
    assert effect("callbacks.layer_statistics.every_n_steps") is Effect.NONE
    assert effect("tune") is effect("tune.steps") is Effect.RESULT
    assert default("tune") is None  # a training
    assert effect("trainer.precision") is effect("callbacks.ema") is effect("optimizer.lr") is Effect.RESULT


@pytest.mark.parametrize(
    ("key", "absent", "other"),
    [
        *(("data.transparency", "white", None), ("data.unreadable", "fail", "skip"), ("data.flip", 0.0, 0.5)),
        *(("data.mixup_alpha", 0.0, 0.2), ("loss.label_smoothing", 0.0, 0.1), ("loss.class_weights", None, "balanced")),
    ],
)
def test_run_without_a_later_key_is_grouped_as_with_its_default(key: str, absent: Any, other: Any) -> None:
    older, (group, name) = recorded(recipe={"name": "r"}), key.split(".")
    with_default, with_other = recorded(recipe={"name": "r"}, seed=1), recorded(recipe={"name": "r"}, seed=2)
    for config, value in ((with_default, absent), (with_other, other)):
        config[group] = {**config.get(group, {}), name: value}
    runs = [
        Run(name, name, config, FINISHED) for name, config in zip("abc", (older, with_default, with_other), strict=True)
    ]
    assert [len(group.runs) for group in group_runs(runs)] == [2, 1]
    assert [len(group) for group in recipe_groups(runs).values()] == [2, 1]


@pytest.mark.parametrize(("model", "key"), [(RunSettings, "note"), (CallbackSettings, "callbacks.watch")])
def test_new_key_or_callback_is_added_to_the_schema_alone(
    monkeypatch: pytest.MonkeyPatch, model: type[BaseModel], key: str
) -> None:
    runs = two_runs_that_differ_in(key)
    assert len(group_runs(runs)) == len(recipe_groups(runs)) == 2
    field = FieldInfo.from_annotation(Annotated[Any, Effect.NONE])
    monkeypatch.setitem(model.model_fields, key.rpartition(".")[2], field)
    assert len(group_runs(runs)) == len(recipe_groups(runs)) == 1
    assert changes(runs[1].config) == []


@pytest.mark.parametrize(
    ("of_the_recipe", "override"),
    [
        ((), "layers=[]"),
        ((), "layers=null"),
        (("freeze=[features]",), "freeze=[]"),
        (("loss.label_smoothing=0.1",), "loss.label_smoothing=0.0"),
        ((), "seed=0"),
    ],
)
def test_override_that_drops_a_setting_of_the_recipe_is_a_change(
    settings: Callable[..., dict[str, Any]], of_the_recipe: tuple[str, ...], override: str
) -> None:
    chosen = "experiment=finetune"
    recipe = {**settings(chosen, *of_the_recipe), "overrides": [chosen]}
    changed = {**settings(chosen, *of_the_recipe, override), "overrides": [chosen, override]}
    is_change = override != "seed=0"
    assert command(changed).endswith(chosen + f" {shlex.quote(override)}" * is_change)
    runs = [Run(name, name, one, FINISHED) for name, one in (("recipe", recipe), ("changed", changed))]
    assert (len(recipe_groups(runs)) == 2) is is_change
    keys = telling([settings_of(run.config) for run in runs])
    assert keys == [override.partition("=")[0]] * is_change


def test_run_without_pictures_has_the_settings_of_one_with_them(settings: Callable[..., dict[str, Any]]) -> None:
    without = settings("callbacks.pictures=null", "seed=1")
    assert len(group_runs([a_run("a"), Run("b", "b", settings(), FINISHED), Run("c", "c", without, FINISHED)])) == 2


def run_in(tmp_path: Path, name: str, *, seed: int, accelerator: str = "cpu", **trainer: Any) -> Run:
    """A finished run's folder with these keys of `trainer`, read as every command reads it."""
    config = recorded(seed=seed, recipe={"name": "r"})
    config |= {key: trainer.pop(key) for key in ("matmul_precision",) if key in trainer}
    config["trainer"] |= trainer
    return read_run(write_run(tmp_path / name, config, hardware={"accelerator": accelerator}))


NEW_CPU = {"precision": "32-true", "matmul_precision": "highest"}
NEW_GPU = {"matmul_precision": "high"}


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        # Older runs: a literal precision or none, and no precision of products.
        ({}, {"precision": "32-true"}, True),
        ({"precision": None}, {"precision": "32-true"}, True),
        ({"precision": "32-true"}, NEW_CPU, True),
        ({}, NEW_CPU, True),
        ({"precision": "32-true"}, {"precision": "bf16-mixed", **NEW_GPU}, False),
        ({"precision": "32-true"}, {"precision": "32-true", **NEW_GPU}, False),
        ({"precision": "32-true", "accelerator": "cuda"}, NEW_CPU, False),
        ({"precision": "32-true", "accelerator": "cuda"}, {"precision": "32-true", **NEW_GPU}, False),
        ({"precision": "32-true", "accelerator": "cuda"}, {"precision": "32-true"}, False),
        ({"precision": "bf16-mixed"}, {"precision": "bf16-mixed", **NEW_GPU}, True),
        # New runs.
        (NEW_CPU, {"precision": "bf16-mixed", **NEW_GPU}, False),
        (NEW_CPU, {"precision": "32-true", **NEW_GPU}, False),
        (NEW_CPU, {"precision": "64-true", "matmul_precision": "highest"}, False),
        (NEW_CPU, {**NEW_CPU, "accelerator": "cuda"}, True),
        ({"precision": "bf16-mixed", "matmul_precision": "highest"}, {"precision": "bf16-mixed", **NEW_GPU}, True),
        ({"precision": "bf16-mixed", **NEW_GPU}, {"precision": "16-mixed", **NEW_GPU}, False),
        ({"precision": "bf16-mixed", **NEW_GPU}, {"precision": "bf16-true", **NEW_GPU}, False),
        # Two names of one precision.
        ({"precision": 32, "matmul_precision": "highest"}, NEW_CPU, True),
        ({"precision": 32, **NEW_GPU}, NEW_CPU, False),
        ({"precision": "bf16", **NEW_GPU}, {"precision": "bf16-mixed", **NEW_GPU}, True),
    ],
)
def test_runs_are_one_group_only_if_they_computed_in_one_precision(
    tmp_path: Path, one: dict[str, Any], other: dict[str, Any], together: bool
) -> None:
    runs = [run_in(tmp_path, "a", seed=0, **one), run_in(tmp_path, "b", seed=1, **other)]
    assert (len(group_runs(runs)) == 1) is (len(recipe_groups(runs)) == 1) is together
    if not together:
        keys = telling([group.settings for group in group_runs(runs)])
        assert {"trainer.precision", "matmul_precision"} & {*keys}, "the table shows why"


def test_recipe_that_follows_the_device_is_titled_by_its_precision(
    settings: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    recipe = ("experiment=ungrouped_imagenette", "data.dir=/nowhere", "logger=none")
    config = settings(*recipe)
    on_gpu = resolved(config, Device("cuda", "A100", has_bf16=True))
    on_cpu = resolved(config, Device("cpu"))
    assert command(on_cpu) == "python src/train.py experiment=ungrouped_imagenette"
    assert command(on_gpu) == f"{command(on_cpu)} trainer.precision=bf16-mixed"
    runs = [Run(name, name, one, FINISHED) for name, one in (("cpu", on_cpu), ("gpu", on_gpu))]
    assert len(recipe_groups(runs)) == 2


@pytest.mark.parametrize(
    "name", ["caffenet_2014", "d2l_alexnet", "d2l_lenet", "krizhevsky_2012", "one_weird_trick_2014"]
)
def test_recipe_with_published_metrics_trains_in_float32_on_every_device(
    settings: Callable[..., dict[str, Any]], name: str
) -> None:
    config = settings(f"experiment={name}")
    assert config["recipe"]["published"]
    assert resolved(config, Device("cuda", "A100", has_bf16=True)) == config
    assert (config["trainer"]["precision"], config["matmul_precision"]) == ("32-true", "highest")
    assert not_comparable({**config, "overrides": ["trainer.precision=bf16-mixed"]}) == ["trainer.precision=bf16-mixed"]
