"""One small training run, and the commands' configurations composed in this process."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

CONF = Path(__file__).parents[1] / "conf"


@dataclass(frozen=True)
class TrainedRun:
    folder: Path

    @property
    def last(self) -> Path:
        return self.folder / "checkpoints" / "last.ckpt"

    @property
    def best(self) -> Path:
        return self.folder / "checkpoints" / "best.ckpt"

    @property
    def result(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder / "result.json").read_text())
        return content


@pytest.fixture(scope="session")
def trained_run(script: Any, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """LeNet after two epochs on synthetic images, tested with its last weights."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    ended = script.run(
        "model=lenet",
        "data=synthetic",
        "data.train_size=128",
        "data.test_size=100",
        "logger=none",
        "trainer=cpu",
        "trainer.max_epochs=2",
        "test_on=last",
        "recipe={name:small,source:ours,published:{}}",
        "run=small",
        f"hydra.run.dir={folder}",
    )
    assert ended.returncode == 0, ended.stderr
    return TrainedRun(folder)


@pytest.fixture(name="composed")
def composed_command() -> Callable[..., DictConfig]:
    """The configuration of a command with overrides: composed("evaluate", "split=val")."""

    def compose_command(name: str, *overrides: str) -> DictConfig:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose(name, list(overrides))

    return compose_command
