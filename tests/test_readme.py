"""Every command of the README runs as typed; trainings are shortened by limits, which does not change what they are."""

import re
import shlex
from pathlib import Path
from typing import Any

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


def shortened(words: list[str]) -> list[str]:
    """What follows `python`, with limits where it trains; only the run that has a name is used by later commands."""
    trains = words[0] == "src/train.py" and not {"--help", "--cfg"} & set(words)
    if words[0] == "src/evaluate.py":
        return [*words, "data.eval_batch_size=500"]
    if not trains or any(word.startswith("resume=logs") for word in words):
        return words
    given = {word.split("=")[0] for word in words}
    limits = SHORT if "run" in given else [*SHORT, "checkpoints=none"]
    return [*words, *(word for word in limits if word.split("=")[0] not in given)]


def test_readme_shows_python_and_make_commands_only() -> None:
    assert {line.split()[0] for line in commands()} <= {"python", *MAKE_AND_LOGIN}
    assert len(python_commands()) >= 10


@pytest.mark.system
def test_readme_commands_run_in_their_order(script: Any, project: Path) -> None:
    """In their order, since the later ones continue and evaluate the run that an earlier one made."""
    for line in python_commands():
        program, *arguments = shortened(shlex.split(line)[1:])
        done = script.finish(script.start(*arguments, program=(program,), cwd=project))
        assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
