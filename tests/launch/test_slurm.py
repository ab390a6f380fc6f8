"""Runs and sweeps under a real Slurm on one node: ranks of `srun`, requeues, and submitit."""

import importlib.util
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.launch.slurm_for_tests import OneNodeSlurm, what_is_missing

from alexnet_lab.runs.metric_rows import read_rows

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(bool(what_is_missing()), reason=f"no Slurm here (slurm-wlm, munge): {what_is_missing()}"),
]
ROOT = Path(__file__).parents[2]
SMALL = (
    *("model=lenet", "data=synthetic", "data.train_size=256", "data.val_size=32", "data.test_size=32"),
    *("data.batch_size=16", "optimizer.lr=0.01", "logger=none"),
)
ON_SLURM = ("trainer=slurm", "trainer.accelerator=cpu")


@pytest.fixture(scope="module")
def slurm(script: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneNodeSlurm]:
    one = OneNodeSlurm(tmp_path_factory.mktemp("slurm"), script.environment)
    try:
        one.start()
        yield one
    finally:
        one.stop()


def srun(*arguments: str, options: str = "--ntasks=2") -> str:
    return f"srun {options} {shlex.join([sys.executable, 'src/train.py', *SMALL, *ON_SLURM, *arguments])}"


def wait(condition: Callable[[], Any], what: Callable[[], str], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what()}"
        time.sleep(0.2)


def epochs(folder: Path) -> list[float]:
    return [row["epoch"] for row in read_rows(folder / "metrics.csv") if "val/top1" in row]


def result(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return content


def ended(slurm: OneNodeSlurm, job: str, output: Path) -> str:
    """The job's output when it has ended."""
    wait(lambda: slurm.state(job) not in ("PENDING", "RUNNING", "COMPLETING"), lambda: output.read_text())
    return output.read_text()


def test_two_tasks_of_srun_are_one_run(slurm: OneNodeSlurm, tmp_path: Path) -> None:
    output = tmp_path / "out"
    line = srun("trainer.max_epochs=1", f"hydra.run.dir={tmp_path}/${{run}}")
    job = slurm.submit(line, "--ntasks=2", f"--output={output}", folder=ROOT)
    text = ended(slurm, job, output)
    assert slurm.state(job) == "COMPLETED", text
    folder = tmp_path / f"slurm-{job}"
    assert result(folder)["status"] == "finished"
    assert result(folder)["world_size"] == 2
    assert (folder / "train.rank1.log").exists()


def test_single_run_in_a_job_of_four_tasks_is_one_process_without_srun(slurm: OneNodeSlurm, tmp_path: Path) -> None:
    output, folder = tmp_path / "out", tmp_path / "run"
    command = (sys.executable, "src/train.py", *SMALL, "trainer=cpu", "trainer.max_epochs=1", f"hydra.run.dir={folder}")
    job = slurm.submit(shlex.join(command), "--ntasks=4", f"--output={output}", folder=ROOT)
    text = ended(slurm, job, output)
    assert slurm.state(job) == "COMPLETED", text
    assert result(folder)["status"] == "finished"
    assert result(folder)["world_size"] == 1
    assert not list(folder.glob("train.rank*.log"))


@pytest.mark.parametrize("how", ["scontrol requeue", "the signal of a time limit"])
def test_requeued_job_goes_on_in_its_own_folder(slurm: OneNodeSlurm, tmp_path: Path, how: str) -> None:
    output, last = tmp_path / "out", 12
    words = (f"trainer.max_epochs={last}", f"hydra.run.dir={tmp_path}/${{run}}", "data.train_size=1024")
    line = srun(*words, options="--ntasks=2 --kill-on-bad-exit=1")
    job = slurm.submit(line, "--ntasks=2", "--requeue", f"--output={output}", "--open-mode=append", folder=ROOT)
    folder = tmp_path / f"slurm-{job}"
    wait(lambda: len(epochs(folder)) >= 2, lambda: output.read_text() if output.exists() else slurm.state(job))
    slurm.run(*(["scontrol", "requeue", job] if "scontrol" in how else ["scancel", "--signal=USR1", job]))
    wait(lambda: slurm.restarts(job) == 1 and slurm.state(job) == "PENDING", lambda: output.read_text())
    assert result(folder)["status"] == "interrupted"
    done = len(epochs(folder))
    assert done < last
    rank_logs = (folder / "train.log").stat().st_size
    slurm.start_now(job)
    text = ended(slurm, job, output)
    assert slurm.state(job) == "COMPLETED", text
    assert result(folder)["status"] == "finished"
    assert result(folder)["world_size"] == 2
    assert epochs(folder) == list(range(last))  # each once: nothing was trained anew
    assert (folder / "train.log").stat().st_size > rank_logs
    assert [path.name for path in tmp_path.glob("slurm-*")] == [folder.name]


def test_scancel_saves_and_does_not_requeue(slurm: OneNodeSlurm, tmp_path: Path) -> None:
    output = tmp_path / "out"
    line = srun("trainer.max_epochs=500", "run=mine", f"hydra.run.dir={tmp_path}/mine")
    job = slurm.submit(line, "--ntasks=2", f"--output={output}", folder=ROOT)
    wait(lambda: epochs(tmp_path / "mine"), lambda: output.read_text() if output.exists() else slurm.state(job))
    slurm.run("scancel", job)
    ended(slurm, job, output)
    wait((tmp_path / "mine" / "result.json").exists, lambda: output.read_text(), seconds=30)
    assert slurm.state(job) == "CANCELLED"
    assert result(tmp_path / "mine")["status"] == "interrupted"


def test_rank_that_is_killed_ends_the_other(slurm: OneNodeSlurm, tmp_path: Path) -> None:
    output = tmp_path / "out"
    line = srun("trainer.max_epochs=500", "run=mine", f"hydra.run.dir={tmp_path}/mine")
    job = slurm.submit(line, "--ntasks=2", f"--output={output}", folder=ROOT)
    folder = tmp_path / "mine"
    wait(lambda: epochs(folder), lambda: output.read_text() if output.exists() else slurm.state(job))
    slurm.run("pkill", "-9", "--newest", "--full", f"^{sys.executable} src/train.py .*{folder}")
    text = ended(slurm, job, output)
    assert slurm.state(job) == "FAILED", text
    assert result(folder)["status"] == "failed"
    assert "another rank ended without recording a reason; was it killed" in result(folder)["error"]


@pytest.mark.skipif(importlib.util.find_spec("submitit") is None, reason="needs the extra slurm")
def test_submitit_sweep_of_two_jobs_with_two_tasks(slurm: OneNodeSlurm, script: Any, tmp_path: Path) -> None:
    sweep, last = tmp_path / "sweep", 24
    arguments = ("seed=0,1,-1", "trainer.devices=2", f"trainer.max_epochs={last}", "hydra/launcher=slurm_cpu")
    command = ("-m", *SMALL, *ON_SLURM, *arguments, f"hydra.sweep.dir={sweep}")
    process = script.start(*command, env=slurm.environment, fresh=True)
    try:
        script.wait(process, lambda: any(epochs(folder) for folder in sweep.glob("*seed=0*")), "the first job trains")
        running = slurm.run("squeue", "--noheader", "--array", "--format=%i %A").stdout.splitlines()
        number = next(line.split()[1] for line in running if line.split()[0].endswith("_0"))
        slurm.run("scancel", "--signal=USR2", number)
        script.wait(process, lambda: slurm.restarts(number) == 1, "requeue")
        script.wait(process, lambda: slurm.state(number) == "PENDING", "requeue")
        slurm.start_now(number)
        done = script.finish(process)
    finally:
        slurm.run("scancel", "--me")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "seed" in done.stderr
    for folder in sweep.glob("*seed=[01]*"):
        assert result(folder)["status"] == "finished"
        assert result(folder)["world_size"] == 2
        assert epochs(folder) == list(range(last))
