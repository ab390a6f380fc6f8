"""Every command of docs/articles.md runs, and prints what the page shows; limits shorten the trainings.

FOLDER is made by the test. The page leaves out columns and lines: the words of each line that it shows are in one line
of the output, in the same order.
"""

import contextlib
import io
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from alexnet_lab.commands.compare import compare
from alexnet_lab.commands.describe import describe

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs/articles.md").read_text()
FOUND = re.findall(r"```sh\n(.*?)```\n\n```text\n(.*?)```", PAGE, re.DOTALL)
BLOCKS = [(command.strip(), shown.splitlines()) for command, shown in FOUND]
TRAININGS = [(line, shown) for line, shown in BLOCKS if line.startswith("python src/train.py")]
OTHERS = dict.fromkeys(line for line, _ in BLOCKS if not line.startswith("python src/train.py"))
SHORT = (
    *("trainer.max_epochs=1", "trainer.limit_train_batches=1", "trainer.limit_val_batches=1"),
    *("trainer.limit_test_batches=1", "data.batch_size=4", "data.eval_batch_size=4", "trainer=cpu", "logger=none"),
)


@pytest.fixture(scope="module")
def flowers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flowers")
    for name in ("daisy", "dandelion", "roses", "sunflowers", "tulips"):
        (folder / name).mkdir()
        for number in range(4):
            Image.effect_noise((40, 30), number + 1).save(folder / name / f"{number}.png")
    return folder


def words(line: str) -> list[str]:
    return re.sub(r"[│┃]", " ", line).split()


def missing(shown: list[str], output: str) -> list[str]:
    """The lines of the page that are in no line of the output."""
    printed = [words(line) for line in output.splitlines()]

    def is_part(line: list[str], whole: list[str]) -> bool:
        rest = iter(whole)
        return all(word in rest for word in line)

    return [line for line in shown if not any(is_part(words(line), whole) for whole in printed)]


def test_each_command_is_followed_by_what_it_prints() -> None:
    assert PAGE.count("```sh\n") == PAGE.count("```text\n") == len(BLOCKS) >= 20
    assert all(shown for _, shown in BLOCKS)
    assert missing(["a 1", "b 1"], "│ a │ 2 │ 1 │\n│ 1 │ b │") == ["b 1"]


@pytest.mark.parametrize("line", OTHERS)
def test_command_prints_what_the_page_shows(line: str, composed: Callable[..., Any], flowers: Path) -> None:
    _, program, *arguments = shlex.split(line.replace("FOLDER", str(flowers)))
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        if program == "-c":
            exec(arguments[0], {})
        elif program == "src/compare.py":
            compare(composed("compare", *(word.replace("docs/", f"{ROOT}/docs/") for word in arguments)))
        else:
            assert program == "src/describe.py"
            describe(composed("describe", *arguments))
    shown = [text for other, texts in BLOCKS if other == line for text in texts]
    assert missing(shown, output.getvalue()) == []


@pytest.mark.system
@pytest.mark.parametrize(("line", "shown"), TRAININGS)
def test_training_prints_what_the_page_shows(
    line: str, shown: list[str], script: Any, project: Path, flowers: Path
) -> None:
    _, program, *arguments = shlex.split(line.replace("FOLDER", str(flowers)))
    done = script.run(*arguments, *SHORT, program=(program,), cwd=project)
    assert done.returncode == 0, done.stderr[-2000:]
    assert missing(shown, done.stdout + done.stderr) == []
