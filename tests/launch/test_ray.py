"""A sweep on Ray, started on this machine: each job is a task of Ray's that starts its ranks itself."""

import json
from pathlib import Path
from typing import Any

import pytest

from alexnet_lab.runs.folders import read_config

SMALL = (
    *("model=lenet", "data=synthetic", "data.train_size=64", "data.val_size=16", "data.test_size=16"),
    *("data.batch_size=16", "trainer=ddp_cpu", "trainer.max_epochs=1", "optimizer.lr=0.01"),
)


@pytest.mark.system
def test_ray_sweep_of_jobs_with_two_ranks_of_which_one_fails(script: Any, tmp_path: Path) -> None:
    for package in ("ray", "hydra_plugins.hydra_ray_launcher"):
        pytest.importorskip(package, reason="needs the extra ray")
    sweep = tmp_path / "sweep"
    ended = script.finish(
        script.start(
            *("-m", *SMALL, "logger=wandb", "seed=0,1,-1", "hydra/launcher=ray_gpu", f"hydra.sweep.dir={sweep}"),
            *("hydra.launcher.ray.init.address=local", "+hydra.launcher.ray.init.num_gpus=2"),  # Ray believes it
            env=script.environment | {"WANDB_RUN_ID": "ofsweep", "RAY_TMPDIR": "/tmp"},
            fresh=True,
        ),
        seconds=300,
    )
    assert ended.returncode == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "seed=-1" in ended.stderr
    folders = sorted(path.parent for path in sweep.glob("*/result.json"))
    assert [read_config(folder)["seed"] for folder in folders] == [0, 1]
    for folder in folders:
        result = json.loads((folder / "result.json").read_text())
        assert (result["status"], result["world_size"]) == ("finished", 2)
        assert read_config(folder)["logger"]["wandb"]["group"] == "sweep"
    ids = {(folder / "wandb" / "run_id").read_text().strip() for folder in folders}
    assert len(ids) == 2
    assert "ofsweep" not in ids
