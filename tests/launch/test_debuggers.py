"""Debuggers work on a run with one rank as on any script, and no watchdog ends a run at their prompt."""

import inspect
import json
from bdb import BdbQuit
from pathlib import Path
from typing import Any

import pytest

from alexnet_lab.classifier import ImageClassifier
from alexnet_lab.data.module import ImageDataModule
from alexnet_lab.errors import INTERRUPTED
from alexnet_lab.launch import ending, rank, starting
from alexnet_lab.launch.stopping import StopRequests
from alexnet_lab.runs.result_file import describe

SMALL = (
    *("model=lenet", "data=synthetic", "data.train_size=32", "data.val_size=16", "data.test_size=16", "logger=none"),
    *("data.batch_size=16", "trainer=cpu", "trainer.max_epochs=1", "hang_timeout=1", "callbacks.pictures=null"),
)


def test_breakpoint_in_the_training_step_reads_from_the_terminal(script: Any, tmp_path: Path) -> None:
    environment = script.environment | {"PYTHONPATH": str(Path(__file__).parent)}
    breaks, where = "+callbacks.breaks._target_=faults.Breaks", f"hydra.run.dir={tmp_path}/run"
    process = script.start(*SMALL, breaks, where, env=environment, stdin=-1)
    wait = "import time; time.sleep(3)"  # longer than hang_timeout
    output, errors = process.communicate(f"p 6*7\n{wait}\nc\np 'step', trainer\nq\n", timeout=120)
    assert output.count("(Pdb)") == 5, errors
    assert "(Pdb) 42" in output
    assert process.returncode == INTERRUPTED
    assert "interrupted (debugger); start again with: " in errors
    assert "Traceback" not in errors
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "interrupted"


@pytest.mark.usefixtures("as_in_a_rank")
def test_start_that_ends_at_the_debuggers_prompt_is_undone(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def quit_in_the_debugger(self: object, dataset: object, **options: object) -> None:
        raise BdbQuit

    monkeypatch.setattr(rank, "_log_to", lambda path, speak: None)
    monkeypatch.setattr(ImageDataModule, "__init__", quit_in_the_debugger)
    folder, found = tmp_path / "run", settings(*SMALL)
    folder.mkdir()
    starting.prepare(folder, found, continues=False)
    with StopRequests() as stop:
        assert ending.conclude(folder, rank.run_rank(folder, found, None, stop)) == INTERRUPTED
    assert capsys.readouterr().err == "interrupted before the training began\n"
    assert not folder.exists()


def test_exception_without_a_text_is_described_by_its_type() -> None:
    assert describe(AssertionError()) == "AssertionError"
    assert describe(KeyError("lr")) == "KeyError: 'lr'"


@pytest.mark.system
def test_pdb_stops_at_a_line_of_the_training_step(script: Any, tmp_path: Path) -> None:
    lines, first = inspect.getsourcelines(ImageClassifier.training_step)
    line = first + next(number for number, text in enumerate(lines) if "return" in text)
    program = ("-m", "pdb", "-c", f"b alexnet_lab/classifier.py:{line}", "-c", "c", "src/train.py")
    process = script.start(*SMALL, f"hydra.run.dir={tmp_path}/run", program=program, stdin=-1, fresh=True)
    output, errors = process.communicate("p 'on line', type(self).__name__\nq\n", timeout=120)
    assert f"classifier.py({line})training_step()" in output, errors
    assert "('on line', 'ImageClassifier')" in output
    assert "interrupted (debugger)" in errors
    assert "Traceback" not in errors
