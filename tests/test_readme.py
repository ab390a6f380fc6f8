"""Every command of the README runs as typed; trainings are shortened by limits, which does not change what they are."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHORT = [
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=1",
    "trainer.limit_val_batches=1",
    "trainer.limit_test_batches=1",
    "data.batch_size=4",
    "data.eval_batch_size=4",
]
MAKE_AND_LOGIN = ("make", "source", "wandb", "eval", "sudo")


def commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    lines = [line.split(" #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


def python_commands() -> list[str]:
    return [line for line in commands() if line.startswith("python ")]


def test_readme_shows_python_and_make_commands_only() -> None:
    assert {line.split()[0] for line in commands()} <= {"python", *MAKE_AND_LOGIN}
    assert len(python_commands()) >= 10


@pytest.mark.system
def test_readme_commands_run_in_their_order(tmp_path: Path) -> None:
    """In their order, since the later ones continue and evaluate the run that an earlier one made."""
    name = f"readme-{tmp_path.parent.name}"
    for line in python_commands():
        words = shlex.split(line.replace("runs/mine", f"runs/{name}").replace("run=mine", f"run={name}"))
        arguments = words[1:]
        trains = arguments[0] == "src/train.py" and not {"--help", "--cfg"} & set(arguments)
        if trains and not any(word.startswith("resume=logs") for word in arguments):
            given = {word.split("=")[0] for word in arguments}
            arguments += [word for word in SHORT if word.split("=")[0] not in given]
        if arguments[0] == "src/evaluate.py":
            arguments.append("data.eval_batch_size=500")
        done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
