"""`result.json`: who may write it, what it says of an error, and the facts about code and machine."""

import errno
import json
import subprocess
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from alexnet_lab import files, places, revision
from alexnet_lab.errors import RunFailed
from alexnet_lab.launch import ownership
from alexnet_lab.runs import result_file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "result.json"


def test_first_of_several_failures_is_kept(path: Path) -> None:
    result_file.write_first(path, "failed", error="the reason", seconds=1.5)
    result_file.write_first(path, "failed", error="a consequence")
    assert result_file.read_result(path) == {"status": "failed", "error": "the reason", "seconds": 1.5}


def test_result_replaces_an_older_one_and_leaves_no_other_file(path: Path) -> None:
    result_file.write_first(path, "failed", error="once")
    result_file.write_result(path, "finished", error=None)
    assert result_file.read_result(path) == {"status": "finished", "error": None}
    result_file.write_first(path, "failed", error="too late")
    assert json.loads(path.read_text())["status"] == "finished"
    assert list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("write", [result_file.write_result, result_file.write_first])
def test_reserved_space_allows_writing_the_result_on_a_full_disk(
    write: Callable[..., None], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result_file.reserve(path)
    reserved = path.with_name(result_file.RESERVE)
    assert reserved.stat().st_size == 65536
    whole = files.write

    def full(to: Path, text: str) -> None:
        if reserved.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(to, text)

    monkeypatch.setattr(files, "write", full)
    write(path, "failed", error="the disk is full")
    assert result_file.read_result(path) == {"status": "failed", "error": "the disk is full"}
    assert list(path.parent.iterdir()) == [path]


def test_result_that_cannot_be_written_is_named(path: Path) -> None:
    with pytest.raises(RunFailed, match=r"result\.json cannot be written: No such file or directory"):
        result_file.write_result(path.parent / "gone" / "result.json", "failed")


def test_missing_file_means_no_result(path: Path) -> None:
    assert result_file.read_result(path) is None


def test_run_without_a_result_was_killed_unless_a_process_still_writes_it(path: Path) -> None:
    assert result_file.read_end(path) == {"status": "failed", "error": "the process was killed (out of memory?)"}
    with ownership.lock(path.parent):
        assert result_file.read_end(path) is None
    result_file.write_result(path, "finished")
    assert result_file.read_end(path) == {"status": "finished"}


def test_expected_failure_is_its_message_and_a_defect_names_its_type() -> None:
    assert result_file.describe(RunFailed("the loss became nan at step 3")) == "the loss became nan at step 3"
    assert result_file.describe(KeyError("x")) == "KeyError: 'x'"


def test_git_revision_contains_the_commit_and_whether_tracked_files_differ(tmp_path: Path) -> None:
    assert revision.git_revision(tmp_path) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    (tmp_path / "file").write_text("1")
    for command in (["init", "-q"], ["add", "file"], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *command], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    (tmp_path / "untracked").write_text("2")
    assert revision.git_revision(tmp_path) == {"commit": commit, "modified": False}
    (tmp_path / "file").write_text("2")
    assert revision.git_revision(tmp_path) == {"commit": commit, "modified": True}
    inside = tmp_path / "venv" / "lib"
    inside.mkdir(parents=True)
    assert revision.git_revision(inside) is None


def test_revision_outside_of_a_git_checkout_is_the_packages_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "CHECKOUT", None)
    monkeypatch.setattr(places, "PACKAGE", tmp_path)
    assert revision.revision() == {"version": metadata.version("alexnet-lab")}
    monkeypatch.setattr(places, "CHECKOUT", tmp_path)
    assert revision.revision() is None
    (tmp_path / "pyproject.toml").write_text("[project]\nversion = '9.8'\n")
    assert revision.revision() == {"version": "9.8"}


@pytest.mark.skipif(not (places.CHECKOUT / ".git").exists(), reason="needs a git checkout")
def test_revision_in_a_git_hook_is_the_checkouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = revision.revision()
    monkeypatch.setenv("GIT_DIR", str(tmp_path))
    assert revision.revision() == there


def test_versions_name_python_and_the_packages_that_matter() -> None:
    found = result_file.versions()
    assert {"python", "torch", "lightning", "hydra-core"} <= set(found)
    assert found["hydra-core"].startswith("1.3")
