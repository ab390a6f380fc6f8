"""Every command of the README and of the training guide runs as typed; limits shorten the trainings.

FOLDER is made by the test, and a file with random weights stands in for the download of torchvision's.
"""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from alexnet_lab.models.alexnet_torchvision import alexnet_torchvision

ROOT = Path(__file__).resolve().parent.parent
SHORT = [
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=1",
    "trainer.limit_val_batches=1",
    "trainer.limit_test_batches=1",
    "data.batch_size=4",
    "data.eval_batch_size=4",
]
PAGES = ("README.md", "docs/training.md")
WEIGHTS = "alexnet.pth"
MAKE_TRAIN = "python src/train.py experiment=quickstart"
"""The command that `make train` runs if `.venv` is complete."""


def commands() -> list[str]:
    """The lines of all ```sh blocks, without comments."""
    text = "\n".join((ROOT / page).read_text() for page in PAGES)
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    lines = [line.split(" #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


def tasks() -> list[str]:
    """The commands of the README's table "I want to ..."."""
    return re.findall(r"^\| .+ \| `(python src/.+)` \|$", (ROOT / "README.md").read_text(), flags=re.MULTILINE)


def python_commands() -> list[str]:
    lines = tasks() + [MAKE_TRAIN if line == "make train" else line.removeprefix(".venv/bin/") for line in commands()]
    return [line for line in lines if line.startswith("python ")]


def shortened(words: list[str]) -> list[str]:
    """The arguments after `python`, with limits for training; later commands use only the named run."""
    trains = words[0] == "src/train.py" and not {"--help", "--cfg"} & set(words)
    if words[0] == "src/evaluate.py":
        return [*words, "data.eval_batch_size=500"]
    words = [word.replace("checkpoint=torchvision", f"checkpoint={WEIGHTS}") for word in words]
    if "experiment=finetune" in words and not any(word.startswith("init=") for word in words):
        words = [*words, f"init={WEIGHTS}"]
    if not trains or any(word.startswith("resume=logs") for word in words):
        return words
    given = {word.split("=")[0] for word in words}
    limits = SHORT if "run" in given else [*SHORT, "checkpoints=none"]
    limits = [*limits, "tune.steps=20"] if "tune=lr" in words else limits
    return [*words, *(word for word in limits if word.split("=")[0] not in given)]


def test_readme_shows_python_and_make_commands_only() -> None:
    assert {line.split()[0] for line in commands()} <= {"python", ".venv/bin/python", "make"}
    assert len(tasks()) >= 18
    assert len(python_commands()) >= len(tasks()) + 7
    assert f"{MAKE_TRAIN} $(ARGS)" in (ROOT / "Makefile").read_text()


@pytest.mark.system
def test_readme_commands_run_in_order(script: Any, project: Path) -> None:
    """In order, because later commands continue and evaluate the run of an earlier one."""
    for number in range(12):
        path = project / "FOLDER" / f"class{number % 3}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((300, 260), number + 1).save(path)
    torch.save(alexnet_torchvision().state_dict(), project / WEIGHTS)
    for line in python_commands():
        program, *arguments = shortened(shlex.split(line)[1:])
        done = script.finish(script.start(*arguments, program=(program,), cwd=project))
        assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
