"""A run's name and folder, the claim of it, and the lock against a second writer."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from alexnet_lab import locks
from alexnet_lab.errors import UserError
from alexnet_lab.launch import naming, ownership, slurm
from alexnet_lab.runs import folders

NOW = "2012-12-03_09-00-00"


@pytest.fixture(autouse=True)
def _started_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("SLURM_", "TORCHELASTIC_", "GROUP_")):
            monkeypatch.delenv(name)


def test_default_name_is_the_time() -> None:
    assert naming.run_name(NOW) == NOW


def test_ranks_of_srun_agree_on_the_jobs_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "1234")
    assert naming.run_name(NOW) == NOW  # in a batch script, without srun, there is one rank
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    slurm.here.cache_clear()
    assert naming.run_name(NOW) == "slurm-1234"


def test_ranks_of_torchrun_agree_on_its_run_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job7")
    assert naming.run_name(NOW) == "torchrun-job7"


def test_ranks_of_torchrun_without_an_id_agree_on_their_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    program = f"from alexnet_lab.launch.naming import run_name; print(run_name('{NOW}'))"
    environment = os.environ | {"PYTHONPATH": str(Path(folders.__file__).parents[2])}
    command = [sys.executable, "-c", program]
    names = [subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout for _ in "12"]
    assert names[0] == names[1]
    assert names[0].startswith("torchrun-")
    assert names[0].strip().endswith(f"-{os.getpid()}")


def test_torchrun_over_several_nodes_needs_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("GROUP_WORLD_SIZE", "2")
    with pytest.raises(UserError, match="needs run=NAME"):
        naming.run_name(NOW)


@pytest.mark.parametrize("name", ["2012-12-03_09-00-00", "a", "lr=0.1,seed=1", "v1.2+x", "Été"])
def test_run_lives_below_the_parent_by_its_name(name: str) -> None:
    assert naming.run_folder("logs/runs", name, None) == f"logs/runs/{name}"
    assert naming.run_folder("logs/runs", name, "auto") == f"logs/runs/{name}"


def test_marker_of_a_dead_process_is_removed_where_flock_works(tmp_path: Path) -> None:
    marker = tmp_path / f"{folders.LOCK}{locks.MARKER}"
    marker.write_text(locks.RELEASED)
    with ownership.lock(tmp_path):
        assert not marker.exists()


@pytest.mark.parametrize("name", ["", "a/b", "../up", ".hidden", "..", "a b", "a\nb", "$HOME"])
def test_name_that_is_no_single_folder_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="a run's name consists of letters"):
        naming.run_folder("logs/runs", name, None)


def test_name_that_is_too_long_for_a_folder_is_refused() -> None:
    with pytest.raises(UserError, match="a run's name has at most 200 bytes"):
        naming.run_folder("logs/runs", "猫" * 67, None)


def test_resume_names_a_folder_or_a_checkpoint_in_it(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "last.ckpt").touch()
    with pytest.raises(UserError, match=r"no run there \(no config\.yaml in"):
        naming.run_folder("logs/runs", "x", str(run))
    ownership.claim(run, {"run": "run"})
    assert naming.run_folder("logs/runs", "x", str(run)) == str(run)
    assert naming.run_folder("logs/runs", "x", str(run / "checkpoints" / "last.ckpt")) == str(run)
    with pytest.raises(UserError, match="no such checkpoint"):
        naming.run_folder("logs/runs", "x", str(run / "checkpoints" / "other.ckpt"))


def test_first_claim_wins_and_the_second_changes_nothing(tmp_path: Path) -> None:
    ownership.claim(tmp_path, {"seed": 1})
    with pytest.raises(UserError, match=rf"run {tmp_path.name} exists already .*\nresume=auto continues it"):
        ownership.claim(tmp_path, {"seed": 2})
    assert folders.read_config(tmp_path) == {"seed": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_rewritten_configuration_reads_back_as_plain_containers(tmp_path: Path) -> None:
    config = {"model": {"dropout": 0.5, "mean": [0.1, 0.2]}, "resume": None}
    ownership.claim(tmp_path, {"seed": 1})
    ownership.rewrite(tmp_path, config)
    found = folders.read_config(tmp_path)
    assert found == config
    assert type(found["model"]) is dict
    assert type(found["model"]["mean"]) is list


def test_second_process_is_refused_while_the_first_holds_the_lock(tmp_path: Path) -> None:
    program = f"import pathlib; from alexnet_lab.launch.ownership import lock; lock(pathlib.Path({str(tmp_path)!r}))"
    environment = os.environ | {"PYTHONPATH": str(Path(folders.__file__).parents[2])}

    def try_lock() -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)

    with ownership.lock(tmp_path):
        refused = try_lock()
        assert refused.returncode != 0
        assert f"is being written by another process (pid {os.getpid()} on " in refused.stderr
    assert try_lock().returncode == 0


@pytest.mark.parametrize(
    "overrides", ["optimizer=sgd,seed=0", "+trainer.max_steps=1e-3", "a_b", "x=-1.5,data.name=Été", "x" * 150]
)
def test_job_is_named_after_its_overrides(overrides: str) -> None:
    assert naming.job_name(overrides) == overrides


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("recipe=a/b", "recipe=a_b"),
        ("data.dir=/sets/a", "data.dir=/sets_a"),
        ("model.lrn=[1]", "model.lrn={1}"),
        (".a", "a"),
        ("...", "job"),
        ("x" * 151, "x" * 152),
    ],
)
def test_jobs_of_different_overrides_have_different_folders(one: str, other: str) -> None:
    first, second = naming.job_name(one), naming.job_name(other)
    assert first != second
    assert naming.run_folder("sweep", first, None) == f"sweep/{first}"
