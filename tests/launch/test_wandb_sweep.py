"""The agent of a W&B sweep: what it types is a command of ours, and the run joins the sweep through rank 0 alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

ROOT = Path(__file__).parents[2]
TRIAL = {"optimizer": "adamw", "optimizer.lr": 0.00123, "optimizer.weight_decay": 1.5e-05}


def typed_by_the_agent(sweep: dict[str, Any]) -> list[str]:
    """The words of the command for `TRIAL`, put together by wandb's own functions."""
    values = create_sweep_command_args({"args": {name: {"value": value} for name, value in TRIAL.items()}})
    words: list[str] = []
    for word in create_sweep_command(sweep["command"]):
        words += values["args_no_hyphens"] if word == "${args_no_hyphens}" else [word]
    return [sweep["program"] if word == "${program}" else word for word in words]


def test_ready_sweep_makes_a_command_that_composes(settings: Callable[..., dict[str, Any]]) -> None:
    sweep = yaml.safe_load((ROOT / "docs" / "wandb_sweep.yaml").read_text())
    assert set(sweep["parameters"]) == set(TRIAL)
    words = typed_by_the_agent(sweep)
    start = words.index(sweep["program"])
    assert words[:start] == ["${env}", "python"]
    found = settings(*words[start + 1 :])
    assert found["optimizer"]["_target_"].endswith("AdamW")
    assert (found["optimizer"]["lr"], found["optimizer"]["weight_decay"]) == (0.00123, 1.5e-05)
    assert found["trainer"]["strategy"] == "ddp"


def test_run_of_an_agent_takes_its_id_on_rank_0_alone(script: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    ended = script.finish(
        script.start(
            *("model=lenet", "data=synthetic", "data.train_size=32", "data.val_size=16", "data.test_size=16"),
            *("data.batch_size=16", "trainer=ddp_cpu", "trainer.max_epochs=1", f"hydra.run.dir={folder}"),
            env=script.environment | {"WANDB_SWEEP_ID": "sweep123", "WANDB_RUN_ID": "trial456"},
        )
    )
    assert ended.returncode == 0, ended.stderr
    (recorded,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    assert recorded.name == "run-trial456.wandb"
    assert b"sweep123" in recorded.read_bytes()
