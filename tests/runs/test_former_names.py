"""Runs recorded by older versions can be read."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from alexnet_lab.config.build import check
from alexnet_lab.runs.folders import CONFIG, FORMER, NEW_NAMES, REMOVED, read_config

RECORDED = sorted((Path(__file__).parents[2] / "docs" / "runs").glob(f"*/*/{CONFIG}"))
OLD: dict[str, Any] = {
    "run": "old",
    "overrides": ["+callbacks.more={_target_: alexnet_lab.callbacks.pictures.Pictures, folder: x}", "seed=1"],
    "callbacks": {
        "pictures": {
            "_target_": "alexnet_lab.callbacks.pictures.Pictures",
            "folder": "f",
            "painter": {"_target_": "alexnet_lab.tracking.pictures.painter.PaperPictures"},
            "images": 400,
        }
    },
    "logger": {
        "wandb": {"_target_": "alexnet_lab.tracking.wandb.wandb_logger", "folder": "f"},
        "tensorboard": {"_target_": "alexnet_lab.tracking.loggers.tensorboard_logger", "folder": "f"},
        "mlflow": {"_target_": "alexnet_lab.tracking.loggers.mlflow_logger", "folder": "f"},
    },
}


def check_parts(config: dict[str, Any]) -> None:
    for group in ("callbacks", "logger"):
        for name, node in (config.get(group) or {}).items():
            if node is not None:  # turned off
                check(node, f"{group}.{name}")


def test_names_of_older_versions_are_translated(tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_text(yaml.safe_dump(OLD))
    config = read_config(tmp_path)
    check_parts(config)
    pictures = {"_target_": "alexnet_lab.pictures.callback.Pictures", "folder": "f", "images": 400}
    assert config["callbacks"] == {"pictures": pictures}
    assert config["overrides"][0] == "+callbacks.more={_target_: alexnet_lab.pictures.callback.Pictures, folder: x}"
    assert not FORMER.search(yaml.safe_dump(config))
    assert read_config(tmp_path) == config


def test_similar_names_are_unchanged(tmp_path: Path) -> None:
    node = {"_target_": "my.alexnet_lab.callbacks.pictures.Pictures", "a": f"{next(iter(NEW_NAMES))}2"}
    mine = {"callbacks": {"mine": node}}
    (tmp_path / CONFIG).write_text(yaml.safe_dump(mine))
    assert read_config(tmp_path) == mine


@pytest.mark.parametrize(("recorded", "norm"), [("True", "lrn"), ("false", "none")])
def test_former_switch_of_lrn_is_todays_norm(tmp_path: Path, recorded: str, norm: str) -> None:
    model = {"_target_": "alexnet_lab.models.caffenet.caffenet", "lrn": recorded == "True", "activation": "tanh"}
    old = {"model": model, "overrides": [f"model.lrn={recorded}", "model.lrn_k=2"]}
    (tmp_path / CONFIG).write_text(yaml.safe_dump(old))
    config = read_config(tmp_path)
    assert config["model"] == {"_target_": model["_target_"], "activation": "tanh", "norm": norm}
    assert config["overrides"] == [f"model.norm={norm}", "model.lrn_k=2"]


def test_network_of_the_users_own_keeps_a_key_called_lrn(tmp_path: Path) -> None:
    mine = {"model": {"_target_": "my.net", "lrn": False}, "overrides": ["model.lrn=false"]}
    (tmp_path / CONFIG).write_text(yaml.safe_dump(mine))
    assert read_config(tmp_path) == mine


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.parent.name)
def test_callbacks_and_loggers_of_every_run_in_the_repository_can_be_built(path: Path) -> None:
    check_parts(read_config(path.parent))


def test_no_former_name_is_in_use_again() -> None:
    assert NEW_NAMES.keys().isdisjoint(NEW_NAMES.values())
    assert NEW_NAMES.keys().isdisjoint(REMOVED)
