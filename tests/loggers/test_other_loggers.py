"""The logger group on the command line, real TensorBoard and MLflow, and a fit and test with several loggers."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
import wandb
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from omegaconf import OmegaConf
from torch.utils.data import DataLoader, TensorDataset

from alexnet_lab import places, revision
from alexnet_lab.commands.entry import register_resolvers
from alexnet_lab.errors import UserError
from alexnet_lab.loggers import others
from alexnet_lab.loggers.others import finish_loggers, log_config, mlflow_logger, tensorboard_logger
from alexnet_lab.loggers.wandb import WandbRun, wandb_logger
from alexnet_lab.loggers.wandb_service import end_service

CONF = Path(__file__).parents[2] / "conf"
CONFIG = {"model": {"name": "net", "dropout": 0.5}, "parameters": 61}
Compose = Callable[..., dict[str, Any]]


class Constant(lightning.LightningModule):
    """One weight; `val/top1` is 0.25 in the first epoch and 0.75 in the second, `test/top1` 0.5."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
        loss: torch.Tensor = (self.weight * batch[0]).mean()
        self.log("train/loss_step", loss)
        return loss

    def validation_step(self, batch: list[torch.Tensor]) -> None:
        self.log("val/top1", 0.25 + 0.5 * self.current_epoch)

    def test_step(self, batch: list[torch.Tensor]) -> None:
        self.log("test/top1", 0.5)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit_and_test(loggers: list[Logger]) -> None:
    data = DataLoader(TensorDataset(torch.ones(4, 1)), batch_size=2)
    trainer = lightning.Trainer(
        max_epochs=2,
        logger=loggers,
        accelerator="cpu",
        devices=1,
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = Constant()
    trainer.fit(module, data, data)
    trainer.test(module, data, verbose=False)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """An empty current folder, no login."""
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith(("WANDB_", "MLFLOW_")) or name == "NETRC":
                patch.delenv(name)
        patch.setenv("HOME", str(tmp_path))
        patch.chdir(tmp_path)
        end_service()
        patch.setattr(wandb, "run", None)
        yield patch
        end_service()


@pytest.fixture
def composed(tmp_path: Path) -> Compose:
    """The composed logger group with these overrides; the default is W&B."""
    primary = {
        "defaults": [{"logger": ["wandb"]}, "_self_"],
        "folder": "logs/run",
        "model": {"_target_": "alexnet_lab.models.lenet.lenet"},
        "data": {"name": "fashion_mnist"},
        "optimizer": {"_target_": "torch.optim.SGD"},
        "seed": 3,
        "sweep_name": "a_sweep",
        "hydra": {"searchpath": [CONF.as_uri()]},
    }
    (tmp_path / "main.yaml").write_text(json.dumps(primary))
    register_resolvers()

    def compose_logger(*overrides: str) -> dict[str, Any]:
        with initialize_config_dir(str(tmp_path), version_base="1.3"):
            config = OmegaConf.to_container(compose("main", overrides=list(overrides)), resolve=True)
        assert isinstance(config, dict)
        found = config["logger"]
        assert isinstance(found, dict)
        return found

    return compose_logger


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        ([], ["wandb"]),
        (["logger=wandb"], ["wandb"]),
        (["logger=csv"], []),
        (["logger=none"], []),
        (["logger=tensorboard"], ["tensorboard"]),
        (["logger=mlflow"], ["mlflow"]),
        (["logger=[wandb,tensorboard]"], ["wandb", "tensorboard"]),
        (["logger=[csv,wandb,mlflow]"], ["wandb", "mlflow"]),
    ],
)
def test_a_name_or_a_list_of_names_chooses_the_loggers(
    overrides: list[str], names: list[str], composed: Compose
) -> None:
    assert list(composed(*overrides)) == names


def test_wandb_names_a_job_by_its_differing_settings_and_groups_it_by_sweep(composed: Compose) -> None:
    for folder, rest in (("run", " run"), ("model=lenet,optimizer.lr=0.1,seed=3", " optimizer.lr=0.1"), ("seed=3", "")):
        node = composed(f"folder='logs/{folder}'")["wandb"]
        assert node["name"] == f"lenet-fashion_mnist-sgd-s3{rest}"
        assert node["group"] == "a_sweep"
        assert node["tags"] == ["lenet", "fashion_mnist", None]
    assert composed("sweep_name=null")["wandb"]["name"] == "lenet-fashion_mnist-sgd-s3"


def test_every_logger_config_names_parameters_of_its_factory(here: pytest.MonkeyPatch, composed: Compose) -> None:
    node = composed("logger=[wandb,tensorboard]", "logger.wandb.tags=[a,b]", "logger.wandb.mode=offline")
    assert isinstance(instantiate(node["wandb"]), WandbRun)
    assert isinstance(instantiate(node["tensorboard"]), TensorBoardLogger)
    assert not Path("logs").exists()


def test_all_loggers_record_fit_and_test(here: pytest.MonkeyPatch) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    loggers: list[Logger] = [wandb_logger("run", mode="offline"), tensorboard_logger("run")]
    log_config(loggers, CONFIG)
    fit_and_test(loggers)
    finish_loggers(loggers, succeeded=True)

    events = EventAccumulator("run/tensorboard").Reload()
    assert [(point.step, point.value) for point in events.Scalars("val/top1")] == [(1, 0.25), (3, 0.75)]
    assert [point.value for point in events.Scalars("test/top1")] == [0.5]

    program = Path(sys.executable).with_name("wandb")
    folder = next(Path("run/wandb").glob("offline-run-*"))
    command = [str(program), "leet", "inspect", "--summary", "--json", str(folder)]
    overview = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout)
    assert overview["config"] == CONFIG
    assert overview["summary"]["val/top1"] == {"max": 0.75}
    assert overview["summary"]["test/top1"] == {"max": 0.5}
    assert overview["exit_code"] == 0


def test_mlflow_runs_share_a_database_and_end_with_their_status(here: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sqlalchemy")
    pytest.importorskip("alembic")
    from mlflow import MlflowClient

    for name, succeeded in (("one", True), ("two", False)):
        loggers = [mlflow_logger(f"logs/{name}")]
        log_config(loggers, CONFIG)
        fit_and_test(loggers)
        finish_loggers(loggers, succeeded=succeeded)

    client = MlflowClient("sqlite:///logs/mlflow.db")
    experiment = client.get_experiment_by_name("alexnet-lab")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert {name: run.info.status for name, run in runs.items()} == {"one": "FINISHED", "two": "FAILED"}
    assert runs["one"].data.metrics["test/top1"] == 0.5
    assert runs["one"].data.params["model/dropout"] == "0.5"
    points = client.get_metric_history(runs["one"].info.run_id, "val/top1")
    assert [(point.step, point.value) for point in points] == [(1, 0.25), (3, 0.75)]


def test_mlflow_and_wandb_record_a_repository_only_if_its_commit_is_that_of_the_result(
    here: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("sqlalchemy")
    pytest.importorskip("alembic")
    from mlflow import MlflowClient

    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "mine"]):
        subprocess.run([*git, *words], check=True)
    mine = revision.git_revision(Path.cwd())
    here.setenv(places.HOME, os.getcwd())
    here.setattr(sys, "argv", [os.path.abspath("program.py")])  # by which MLflow finds a repository
    for checkout, commit, repository in ((None, "", None), (Path.cwd(), mine["commit"], Path.cwd())):
        here.setattr(places, "CHECKOUT", checkout)
        run = MlflowClient("sqlite:///logs/mlflow.db").get_run(mlflow_logger("logs/mine").run_id)
        assert run.data.tags["mlflow.source.git.commit"] == commit
        assert run.data.tags.get("mlflow.source.git.branch") in ("", None)  # MLflow looks for it once in a process
        assert revision.repository() == repository


@pytest.mark.parametrize(("factory", "extra"), [(tensorboard_logger, "tensorboard"), (mlflow_logger, "mlflow")])
def test_missing_package_is_reported_with_its_install_command(
    factory: Callable[[str], Logger], extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(others, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=rf"logger={extra} needs .*: pip install -e '\.\[{extra}\]'"):
        factory("run")
