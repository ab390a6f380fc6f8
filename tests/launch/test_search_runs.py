"""Searches through the real script, each trial a training run."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

optuna = pytest.importorskip("optuna", minversion="4", reason="the extra optuna is not installed")

from alexnet_lab.launch.search_study import open_study, pruner_of  # noqa: E402

SMALL = (
    *("-m", "hydra/sweeper=optuna", "model=lenet", "data=synthetic", "data.channels=1", "data.stored_size=28"),
    *("data.train_size=512", "data.batch_size=8", "data.val_size=128", "test_on=none", "logger=none", "trainer=cpu"),
    *("trainer.max_epochs=3", "callbacks.pictures=null", "optimizer=adamw"),
    *("optimizer.lr=tag(log,interval(0.0005,0.02))", "optimizer.weight_decay=choice(0.0,0.1)"),
)


def trials(folder: Path) -> list[tuple[Any, ...]]:
    found = open_study(None, folder.name, "maximize", folder).trials
    return [(one.number, one.state.name, one.values, one.params, one.intermediate_values) for one in found]


def results(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in folder.glob("*/result.json")]


@pytest.mark.system
def test_search_killed_twice_has_the_trials_and_values_of_an_uninterrupted_one(script: Any, tmp_path: Path) -> None:
    command = (*SMALL, "hydra.sweeper.n_trials=6", "hydra/sweeper/sampler=tpe", "hydra.launcher.jobs_at_once=2")
    command = (*command, "hydra.sweeper.sampler.n_startup_trials=2", "run=search", "resume=auto")
    whole, folder = tmp_path / "whole" / "search", tmp_path / "killed" / "search"
    ended = script.run(*command, f"hydra.sweep.dir={whole}")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "6 finished of 6 trials" in ended.stdout
    for count in (2, 5):
        process = script.start(*command, f"hydra.sweep.dir={folder}")
        script.wait(process, lambda count=count: len(list(folder.glob("*/metrics.csv"))) >= count, "a trial")
        process.kill()
        process.wait()
    ended = script.run(*command, f"hydra.sweep.dir={folder}")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert trials(folder) == trials(whole)
    assert len({one[2][0] for one in trials(whole)}) > 1  # what TPE proposes depends on them
    assert {path.name for path in folder.glob("*/")} == {path.name for path in whole.glob("*/")}


@pytest.mark.system
@pytest.mark.parametrize("trainer", ["cpu", "ddp_cpu"])
def test_trials_are_pruned_after_the_epoch_that_the_pruner_says(trainer: str, script: Any, tmp_path: Path) -> None:
    folder = tmp_path / "search"
    pruner = {"_target_": "threshold", "lower": 0.1}
    options = ("hydra/sweeper/pruner=threshold", f"hydra.sweeper.pruner.lower={pruner['lower']}")
    command = (*SMALL, f"trainer={trainer}", "hydra/sweeper/sampler=random", "hydra.sweeper.n_trials=4")
    ended = script.run(*command, *options, f"hydra.sweep.dir={folder}")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = open_study(None, "search", "maximize", folder).trials
    by_itself = optuna.create_study(direction="maximize", pruner=pruner_of(pruner))
    for one in found:
        trial = by_itself.ask()
        decisions = []
        for epoch, top1 in one.intermediate_values.items():
            trial.report(top1, epoch)
            decisions.append(trial.should_prune())
        assert decisions[:-1] == [False] * (len(decisions) - 1)
        assert decisions[-1] == (one.state.name == "PRUNED")
        assert decisions[-1] or len(decisions) == 3
    statuses = [one["status"] for one in results(folder)]
    assert statuses.count("pruned") == [one.state.name for one in found].count("PRUNED") > 0
    compare = next(line for line in ended.stdout.splitlines() if line.startswith("compare with: "))
    words = shlex.split(compare.removeprefix("compare with: "))
    shown = script.run(*words[2:], program=tuple(words[1:2]))
    assert shown.returncode == 0, shown.stderr
    assert "pruned" in shown.stdout
