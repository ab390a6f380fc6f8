"""Every file of `conf/sweep` is a sweep whose jobs compose; what it says of itself holds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import create_config_search_path
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins

CONF = Path(__file__).parents[2] / "conf"
SWEEPS = sorted((CONF / "sweep").glob("*.yaml"))
Settings = Callable[..., dict[str, Any]]


def sweeper(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text())
    assert content["hydra"]["mode"] == "MULTIRUN"
    found: dict[str, Any] = content["hydra"]["sweeper"]
    return found


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_job_of_a_ready_sweep_composes(path: Path, settings: Settings) -> None:
    found = sweeper(path)
    if "jobs" in found:
        jobs = list(found["jobs"].values())
        assert len({tuple(job) for job in jobs}) == len(jobs)
    elif "sampler" in found:
        jobs = [["optimizer=sgd", "optimizer.lr=0.1", "optimizer.weight_decay=0.001"]]
    else:
        texts = [f"{key}={value}" for key, value in found["params"].items()]
        parser = OverridesParser.create(ConfigLoaderImpl(create_config_search_path(str(CONF))))
        (jobs,) = BasicSweeper.split_arguments(parser.parse_overrides(texts), None)
    if path.stem == "all_networks":
        assert jobs == [[f"model={name.stem}"] for name in sorted((CONF / "model").glob("*.yaml"))]
    for job in jobs:
        assert settings(f"sweep={path.stem}", *job)["model"]


def test_hydra_finds_the_launcher_and_the_sweeper_without_an_install() -> None:
    names = set(Plugins.instance().class_name_to_class)
    ours = "hydra_plugins.alexnet_lab_launcher"
    assert {f"{ours}.launcher.ProcessLauncher", f"{ours}.sweeper.JobsSweeper", f"{ours}.sweeper.OptunaSweeper"} <= names


def test_configurations_of_the_former_sweeper_do_not_replace_ours(settings: Settings) -> None:
    store = ConfigStore.instance()
    for group, name in (("hydra/sweeper", "optuna"), ("hydra/sweeper/sampler", "tpe")):
        store.store(group=group, name=name, node={"defaults": [{"sampler": "tpe"}]}, provider="optuna_sweeper")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", ["sweep=optuna_search", "run=test"], return_hydra_config=True)
    found = config.hydra.sweeper
    assert (found._target_.rpartition(".")[2], found.sampler._target_, found.n_jobs) == (
        *("OptunaSweeper", "optuna.samplers.TPESampler"),
        None,
    )
