"""Each signal in each phase of a run, in single runs, runs of two ranks and jobs of a sweep."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2")
PHASES = {
    "importing": "",  # by the test, while a fresh interpreter imports torch
    "preparing data": "setup",
    "first step": "on_train_batch_start",
    "validation": "on_validation_batch_start",
    "checkpoint write": "on_save_checkpoint",
    "test": "on_test_batch_start",
    "W&B's finish": "wandb_finish",
}
BEFORE, AFTER = ("importing", "preparing data"), ("test", "W&B's finish")
STARTS = {"single": ("trainer=cpu",), "two ranks": ("trainer=ddp_cpu",), "sweep job": ("-m", "trainer=cpu")}
SMALL = (
    *("model=lenet", "data=synthetic", "data.train_size=64", "data.val_size=32", "data.test_size=32"),
    *("data.batch_size=16", "trainer.max_epochs=2", "callbacks.pictures=null", "logger=wandb"),
)
# Each phase of each start with one signal; `launch/test_stopping.py` shows that all signals are treated alike.
CASES = [
    (SIGNALS[(row + 2 * column) % len(SIGNALS)], phase, start)
    for column, start in enumerate(STARTS)
    for row, phase in enumerate(PHASES)
]


@pytest.mark.system
@pytest.mark.parametrize("trainer", ["cpu", "ddp_cpu"])
def test_run_that_was_stopped_for_longer_than_hang_timeout_continues(trainer: str, script: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    more = ("logger=none", f"trainer={trainer}", "trainer.max_epochs=60", "hang_timeout=2")
    process = script.start(*SMALL, *more, f"hydra.run.dir={folder}")
    script.wait(process, (folder / "checkpoints" / "last.ckpt").exists, "the first epoch")
    os.killpg(process.pid, signal.SIGSTOP)  # as Ctrl-Z, which the system ignores in a session without a terminal
    time.sleep(4)
    os.killpg(process.pid, signal.SIGCONT)
    ended = script.finish(process)
    assert ended.returncode == 0, ended.stderr
    assert json.loads((folder / "result.json").read_text())["status"] == "finished"


@pytest.mark.system
@pytest.mark.parametrize("trainer", ["cpu", "ddp_cpu"])
def test_run_whose_terminal_is_gone_saves_and_stops(trainer: str, script: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    more = ("logger=none", f"trainer={trainer}", "trainer.max_epochs=4000")
    process = script.start(*SMALL, *more, f"hydra.run.dir={folder}")
    script.wait(process, (folder / "checkpoints" / "last.ckpt").exists, "the first epoch")
    process.stdout.close()
    process.stderr.close()
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=60) == 3
    assert json.loads((folder / "result.json").read_text())["status"] == "interrupted"


@pytest.mark.system
def test_finished_run_whose_output_nobody_reads_exits_with_0(script: Any, tmp_path: Path) -> None:
    process = script.start(*SMALL, "logger=none", "trainer=cpu", f"hydra.run.dir={tmp_path}/run")
    process.stdout.close()
    process.stderr.close()
    assert process.wait(timeout=60) == 0
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "finished"


@pytest.mark.system
def test_request_that_a_library_swallows_before_training_ends_the_start(script: Any, tmp_path: Path) -> None:
    environment = script.environment | {"PYTHONPATH": str(Path(__file__).parent / "launch")}
    swallows = "+callbacks.swallows._target_=faults.Swallows"
    ended = script.run(*SMALL, "trainer=cpu", swallows, f"hydra.run.dir={tmp_path}/run", env=environment)
    assert ended.returncode == 3, ended.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.system
@pytest.mark.parametrize(("name", "phase", "start"), CASES)
def test_signal_ends_a_run_as_its_phase_asks(name: str, phase: str, start: str, script: Any, tmp_path: Path) -> None:
    number = signal.Signals[name]
    sweep = start == "sweep job"
    folder = tmp_path / "sweep" / "mine" if sweep else tmp_path / "run"
    where = [f"hydra.sweep.dir={tmp_path}/sweep", "hydra.sweep.subdir=mine"] if sweep else [f"hydra.run.dir={folder}"]
    environment = script.environment | {"PYTHONPATH": str(Path(__file__).parent / "launch")}
    asked = f"+callbacks.asked={{_target_:faults.Signals,number:{int(number)},hook:{PHASES[phase]}}}"
    arguments = [*STARTS[start], *SMALL, *where]
    if PHASES[phase]:
        process = script.start(*arguments, asked, env=environment)
    else:
        process = script.start(*arguments, env=environment, fresh=True)
        script.wait(process, (folder / ".starting").exists, "it has its folder")
        job = int((folder / ".lock").read_text().split()[1])
        os.kill(job, number)
    ended = script.finish(process)

    result = json.loads((folder / "result.json").read_text()) if (folder / "result.json").exists() else {}
    if phase in BEFORE:
        assert ended.returncode == 3, ended.stderr
        assert not (folder / "config.yaml").exists()
        assert not result
    elif phase in AFTER:
        assert ended.returncode == 0, ended.stderr
        assert result["status"] == "finished"
        assert "test/top1" in result["final"]
    else:
        assert ended.returncode == 3, ended.stderr
        assert (result["status"], result["reason"]) == ("interrupted", "signal")
        assert (folder / "checkpoints" / "last.ckpt").exists()
    assert "Traceback" not in ended.stderr
