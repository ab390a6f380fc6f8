"""Sweeps through the real script: each job is a run of its own, fails alone, and is not run twice."""

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.warm import PROCESSES

from alexnet_lab.launch.naming import job_name
from alexnet_lab.runs.folders import read_config
from alexnet_lab.runs.metric_rows import read_rows

ROOT = Path(__file__).parents[2]
TINY = (
    *("data=synthetic", "data.train_size=32", "data.val_size=16", "data.test_size=16", "data.batch_size=16"),
    *("model.image_size=67", "trainer.max_epochs=1", "checkpoints=none", "logger=none"),
)
LENET = ("model=lenet", "data=synthetic", "logger=none", "trainer=cpu")


class Watched:
    """An environment whose processes are known by their numbers, and which finds `faults.py`."""

    def __init__(self, script: Any, folder: Path) -> None:
        self._numbers = folder / "processes"
        paths = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
        self.environment = script.environment | {PROCESSES: str(self._numbers), "PYTHONPATH": paths}

    @property
    def started(self) -> list[int]:
        return [int(line) for line in self._numbers.read_text().splitlines()] if self._numbers.exists() else []

    @property
    def living(self) -> list[int]:
        return [number for number in self.started if is_alive(number)]

    def wait_for_none(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self.living:
            assert time.monotonic() < deadline, f"still there after {seconds} s: {self.living}"
            time.sleep(0.1)


@pytest.fixture
def watched(script: Any, tmp_path: Path) -> Watched:
    return Watched(script, tmp_path)


def is_alive(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def result(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return content


def results(sweep: Path) -> dict[str, dict[str, Any]]:
    return {path.parent.name: result(path.parent) for path in sweep.glob("*/result.json")}


def test_job_that_cannot_be_is_told_and_the_others_are_run(script: Any, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    jobs = "+hydra.sweeper.jobs={wrong:['model.dropout=7'],good:[],bad:['optimizer.lr=1e30']}"
    small = ("data.train_size=128", "data.val_size=8", "trainer.max_epochs=1", "test_on=none", "optimizer.lr=0.1")
    ended = script.run("-m", *LENET, *small, "hydra/sweeper=jobs", jobs, f"hydra.sweep.dir={sweep}")
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert "wrong" in ended.stdout
    assert "model.dropout must be in [0, 1), got 7" in ended.stdout
    by_name = {path.name.split(",")[0]: path for path in sweep.iterdir() if not path.name.startswith(".")}
    assert result(by_name["good"])["status"] == "finished"
    assert result(by_name["bad"])["status"] == "failed"
    # A job's own override goes before the command line's.
    assert read_config(by_name["good"])["optimizer"]["lr"] == 0.1
    assert read_config(by_name["bad"])["optimizer"]["lr"] == 1e30
    assert read_config(by_name["good"])["sweep_name"] == "sweep"
    assert not (by_name["wrong"] / "config.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["seed=0,1", "hydra.launcher.jobs_at_once=0"], "error: hydra.launcher.jobs_at_once must be above 0, got 0"),
        (["seed=0,1", "resume=somewhere"], f"error: resume={ROOT}/somewhere: a sweep takes resume=auto with run=NAME"),
        (
            ["seed=0,1", "hydra.sweeper.max_batch_size=1"],
            "error: hydra.sweeper.max_batch_size is not for this launcher",
        ),
        (["hydra/sweeper=jobs"], "error: hydra/sweeper=jobs needs +hydra.sweeper.jobs"),
        (["optimizer.lrr=1,2"], "error: there is no option 'optimizer.lrr', did you mean optimizer.lr?"),
    ],
)
def test_sweep_that_cannot_be_is_told_in_a_line(
    arguments: list[str], message: str, script: Any, tmp_path: Path
) -> None:
    ended = script.run("-m", *LENET, f"hydra.sweep.dir={tmp_path}/sweep", *arguments)
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[0].startswith(message)
    assert not list(tmp_path.glob("sweep/*/"))


@pytest.mark.system
def test_four_jobs_of_two_ranks_make_one_tree_and_are_not_run_again(script: Any, tmp_path: Path) -> None:
    grid = ("model=lenet,alexnet_half_v2", "optimizer=sgd,adamw", "trainer=ddp_cpu")
    command = ("-m", *grid, *TINY, "run=four", "resume=auto", f"hydra.sweep.dir={tmp_path}/four")
    ended = script.finish(script.start(*command, "hydra.launcher.jobs_at_once=2"), seconds=400)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    before = results(tmp_path / "four")
    assert len(before) == 4
    assert {one["status"] for one in before.values()} == {"finished"}
    assert {one["world_size"] for one in before.values()} == {2}
    assert {path.name for path in tmp_path.iterdir()} == {"four"}
    settings = [read_config(tmp_path / "four" / name) for name in before]
    targets = {(one["model"]["_target_"], one["optimizer"]["_target_"]) for one in settings}
    assert len(targets) == 4

    again = script.run(*command)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "4 of 4 jobs finished" in again.stdout
    assert results(tmp_path / "four") == before


@pytest.mark.system
def test_jobs_whose_rank_fails_in_any_way_fail_alone(script: Any, watched: Watched, tmp_path: Path) -> None:
    fault = "+callbacks.fault={_target_:faults.Fault,kind:KIND}"
    kinds = {name: [fault.replace("KIND", name)] for name in ("raises", "is_killed", "stops", "hangs")}
    kinds["hangs"].append("hang_timeout=10")
    conf = tmp_path / "conf" / "sweep"
    conf.mkdir(parents=True)
    content = {"defaults": [{"override /hydra/sweeper": "jobs"}], "hydra": {"sweeper": {"jobs": kinds | {"good": []}}}}
    (conf / "faults.yaml").write_text("# @package _global_\n" + yaml.safe_dump(content))
    process = script.start(
        *("-m", "--config-dir", str(conf.parent), "sweep=faults", "model=lenet", "trainer=ddp_cpu", *TINY),
        *(f"hydra.sweep.dir={tmp_path}/sweep", "hydra.launcher.jobs_at_once=2"),
        env=watched.environment,
    )
    ended = script.finish(process, seconds=400)
    assert ended.returncode == 1
    watched.wait_for_none(5)
    assert len(watched.started) == 1 + 5 * 3  # the sweep, and five jobs of two ranks
    found = {name.split(",")[0]: one for name, one in results(tmp_path / "sweep").items()}
    assert {name: one["status"] for name, one in found.items()} == dict.fromkeys(kinds, "failed") | {"good": "finished"}
    assert "ZeroDivisionError: on purpose" in found["raises"]["error"]
    assert found["is_killed"]["error"].startswith("rank 1 was killed by SIGKILL (out of memory?)")
    assert found["stops"]["error"].startswith("rank 1 was stopped (state T) for 12 s and was killed")
    assert found["hangs"]["error"].startswith("rank 1 finished no batch for 10 s (hang_timeout)")
    assert "time.sleep" in found["hangs"]["error"]


@pytest.mark.system
def test_sweep_killed_in_the_middle_goes_on_where_it_was_and_with_the_code_of_its_start(
    script: Any, watched: Watched, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    for name in ("src", "conf"):
        shutil.copytree(ROOT / name, project / name)
    sweep = tmp_path / "sweep"
    long = ("data.train_size=4096", "trainer.max_epochs=2", "checkpoints.every_minutes=0.005", "test_on=none")
    command = ("-m", *LENET, *long, "seed=0,1,2", "trainer.log_every_n_steps=1", "run=n", "resume=auto")
    start = {"program": (str(project / "src" / "train.py"),), "env": watched.environment, "cwd": project}
    first, second, third = (sweep / name for name in names_of(long))
    process = script.start(*command, f"hydra.sweep.dir={sweep}", **start)
    script.wait(process, (first / "config.yaml").exists, "the first job")
    # What is edited now is no matter of the jobs that wait.
    lenet = project / "src" / "alexnet_lab" / "models" / "lenet.py"
    lenet.write_text("raise RuntimeError('an edit in the middle')")
    (project / "conf" / "optimizer" / "sgd.yaml").write_text("lr: 1000")
    refused = script.run(*command, f"hydra.sweep.dir={sweep}", env=watched.environment)
    assert refused.returncode == 2
    assert "is being written by another process" in refused.stderr
    script.wait(process, lambda: len(read_rows(second / "metrics.csv")) > 20, "the second job")
    before = result(first)
    process.kill()
    process.wait()
    watched.wait_for_none(10)
    assert not third.exists()

    for name in ("src", "conf"):
        shutil.rmtree(project / name)
        shutil.copytree(ROOT / name, project / name)
    ended = script.finish(script.start(*command, f"hydra.sweep.dir={sweep}", **start))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert result(first) == before
    assert {one["status"] for one in results(sweep).values()} == {"finished"}
    assert len(results(sweep)) == 3
    steps = [row["step"] for row in read_rows(second / "metrics.csv") if "train/loss_step" in row]
    assert steps == list(range(1, 257))


def names_of(long: tuple[str, ...]) -> list[str]:
    constant = [*LENET, *long, "trainer.log_every_n_steps=1"]
    return [job_name(",".join(sorted([*constant, f"seed={seed}"]))) for seed in range(3)]


@pytest.mark.system
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_request_to_stop_ends_all_jobs_with_their_ranks(
    number: signal.Signals, script: Any, watched: Watched, tmp_path: Path
) -> None:
    sweep = tmp_path / "sweep"
    process = script.start(
        *("-m", "model=lenet", "data=synthetic", "logger=none", "trainer=ddp_cpu", "seed=0,1,2"),
        *("trainer.max_epochs=1000", "hydra.launcher.jobs_at_once=2", f"hydra.sweep.dir={sweep}"),
        env=watched.environment,
    )
    script.wait(process, lambda: len(list(sweep.glob("*/checkpoints/last.ckpt"))) == 2, "two jobs in training")
    process.send_signal(number)
    ended = script.finish(process, seconds=60)
    assert ended.returncode == 3
    assert watched.living == []
    assert [one["status"] for one in results(sweep).values()] == ["interrupted", "interrupted"]


@pytest.mark.system
def test_job_beyond_its_time_is_ended_and_fail_fast_ends_the_sweep(
    script: Any, watched: Watched, tmp_path: Path
) -> None:
    sweep = tmp_path / "sweep"
    ended = script.run(
        *("-m", *LENET, "trainer.max_epochs=100000", "seed=0,1"),
        *("hydra.launcher.job_timeout=15", "hydra.launcher.fail_fast=true", f"hydra.sweep.dir={sweep}"),
        env=watched.environment,
    )
    assert ended.returncode == 1
    assert watched.living == []
    (one,) = results(sweep).values()
    assert one["status"] == "failed"
    assert one["error"].startswith("did not end within hydra.launcher.job_timeout=15 s; the last lines of job.log:")
    assert "skipped" in ended.stdout


@pytest.mark.system
def test_optuna_gets_each_jobs_value_and_every_rank_its_parameters(
    script: Any, watched: Watched, tmp_path: Path
) -> None:
    pytest.importorskip("optuna", minversion="4", reason="the extra optuna is not installed")
    sweep = tmp_path / "sweep"
    tell = "+callbacks.tell._target_=faults.Tell"
    process = script.start(
        *("sweep=optuna_search", "model=lenet", "trainer=ddp_cpu", tell, *TINY, f"hydra.sweep.dir={sweep}"),
        *("hydra.sweeper.n_trials=4", "hydra.sweeper.n_jobs=2", "hydra.launcher.jobs_at_once=2"),
        *("optimizer=sgd", "model.dropout=choice(0.5, 7)"),  # 7 cannot be: a trial that fails
        env=watched.environment,
    )
    ended = script.finish(process, seconds=400)
    found = results(sweep)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert 1 <= len(found) < 4
    assert all(one["status"] == "finished" for one in found.values())
    assert len([path for path in sweep.iterdir() if path.is_dir() and path.name != ".code"]) == 4
    values = {name: one["best"]["val/top1"] for name, one in found.items()}
    best = yaml.safe_load((sweep / "optimization_results.yaml").read_text())
    assert best["best_value"] == max(values.values())
    for name in values:
        ranks = [json.loads((sweep / name / f"rank{rank}.json").read_text()) for rank in (0, 1)]
        assert ranks[0] == ranks[1]
        assert ranks[0]["lr"] == pytest.approx(read_config(sweep / name)["optimizer"]["lr"])
    assert len({read_config(sweep / name)["optimizer"]["lr"] for name in values}) == len(values)


def test_processes_are_found_as_long_as_they_live(script: Any, watched: Watched, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("import time; time.sleep(60)")
    sleeping = script.start(program=(str(tmp_path / "program.py"),), env=watched.environment)
    script.wait(sleeping, lambda: watched.started, "its number is known")
    assert watched.living == [sleeping.pid]
    sleeping.kill()
    sleeping.wait()
    assert watched.living == []
