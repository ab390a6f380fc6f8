"""The main job from end to end: `make train` on the real Fashion-MNIST."""

import json
import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SYSTEM_DATA = Path("/usr/share/datasets/fashion-mnist")


@pytest.mark.system
@pytest.mark.timeout(2400)
@pytest.mark.skipif(not SYSTEM_DATA.exists(), reason="needs Debian's package dataset-fashion-mnist")
def test_make_train_reaches_70_percent_and_leaves_every_file_of_the_contract(tmp_path: Path) -> None:
    name = f"quickstart-{uuid.uuid4().hex[:8]}"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")} | {
        "HOME": str(tmp_path)
    }
    subprocess.run(["make", "train", f"ARGS=run={name}"], cwd=ROOT, env=environment, check=True)

    folder = ROOT / "logs/train/runs" / name
    result = json.loads((folder / "result.json").read_text())
    assert result["status"] == "finished"
    assert result["final"]["test/top1"] >= 0.70
    assert result["final"]["test/top5"] >= 0.95
    for file in ("config.yaml", "metrics.csv", "train.log", "checkpoints/last.ckpt", "checkpoints/best.ckpt"):
        assert (folder / file).stat().st_size > 0

    (offline,) = folder.glob("wandb/offline-run-*")
    wandb = Path(sys.executable).with_name("wandb")
    printed = subprocess.run([wandb, "leet", "inspect", "--json", offline], capture_output=True, text=True, check=True)
    history = [json.loads(line) for line in printed.stdout.splitlines() if '"history"' in line]
    logged = json.dumps(history)
    assert "val/top1" in logged
    assert "val/top5" in logged
    shutil.rmtree(folder)
