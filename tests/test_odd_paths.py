"""A checkout, a user's folder and files with names that contain special characters of the shell and Hydra."""

import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
ODD = "lab; é#1 $x 'y' [z], 100%=a"


@pytest.mark.system
def test_corrected_command_can_be_pasted_from_any_folder(script: Any, tmp_path: Path) -> None:
    project, here = tmp_path / ODD, tmp_path / "caller (1) 猫"
    for name in ("src", "conf"):
        shutil.copytree(ROOT / name, project / name)
    (here / "photos é").mkdir(parents=True)
    Image.new("RGB", (50, 40), (200, 10, 10)).save(here / "photos é" / "a, b=1 [x].jpg")
    small = ("model=lenet", "data=synthetic", "data.train_size=32", "data.val_size=16", "logger=none", "trainer=cpu")
    train = (str(project / "src/train.py"),)
    name = 'run="lr=0.1,é"'
    trained = script.run(*small, "trainer.max_epochs=1", "test_on=none", name, cwd=here, program=train)
    assert trained.returncode == 0, trained.stderr
    checkpoint = project / "logs/train/runs/lr=0.1,é/checkpoints/best.ckpt"
    arguments = (f"checkpoint={checkpoint}", "images=photos é", "out=classes.csv", "sheet=my sheet.png")
    refused = script.run(*arguments, cwd=here, program=(str(project / "src/predict.py"),))
    assert refused.returncode == 2
    first, line = refused.stderr.splitlines()
    assert first == f"error: checkpoint={checkpoint}: Hydra cannot parse this; quoted for Hydra and for the shell:"
    assert Path(shlex.split(line)[1]) == project / "src/predict.py"
    pasted = subprocess.run(["bash", "-c", line], cwd=here, env=script.environment, capture_output=True, text=True)
    assert pasted.returncode == 0, pasted.stderr
    written = [text for text in pasted.stdout.splitlines() if text.startswith("written: ")]
    assert written == [f"written: {here}/classes.csv", f"written: {here}/my sheet.png"]
    assert f"{here}/photos é/a, b=1 [x].jpg" in (here / "classes.csv").read_text()
