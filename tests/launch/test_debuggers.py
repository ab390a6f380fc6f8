"""Debuggers work on a run with one rank as on any script, and no watchdog ends a run at their prompt."""

import inspect
from pathlib import Path
from typing import Any

import pytest

from alexnet_lab.classifier import ImageClassifier

SMALL = (
    *("model=lenet", "data=synthetic", "data.train_size=32", "data.val_size=16", "data.test_size=16", "logger=none"),
    *("data.batch_size=16", "trainer=cpu", "trainer.max_epochs=1", "hang_timeout=1", "callbacks.pictures=null"),
)


def test_breakpoint_in_the_training_step_reads_from_the_terminal(script: Any, tmp_path: Path) -> None:
    environment = script.environment | {"PYTHONPATH": str(Path(__file__).parent)}
    breaks, where = "+callbacks.breaks._target_=faults.Breaks", f"hydra.run.dir={tmp_path}/run"
    process = script.start(*SMALL, breaks, where, env=environment, stdin=-1)
    wait = "import time; time.sleep(3)"  # longer than hang_timeout
    output, errors = process.communicate(f"p 6*7\n{wait}\nc\np 'step', trainer\nc\n", timeout=120)
    assert process.returncode == 0, errors
    assert output.count("(Pdb)") == 5
    assert "(Pdb) 42" in output
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()


@pytest.mark.system
def test_pdb_stops_at_a_line_of_the_training_step(script: Any, tmp_path: Path) -> None:
    lines, first = inspect.getsourcelines(ImageClassifier.training_step)
    line = first + next(number for number, text in enumerate(lines) if "return" in text)
    program = ("-m", "pdb", "-c", f"b alexnet_lab/classifier.py:{line}", "-c", "c", "src/train.py")
    process = script.start(*SMALL, f"hydra.run.dir={tmp_path}/run", program=program, stdin=-1, fresh=True)
    output, errors = process.communicate("p 'on line', type(self).__name__\nq\n", timeout=120)
    assert f"classifier.py({line})training_step()" in output, errors
    assert "('on line', 'ImageClassifier')" in output
