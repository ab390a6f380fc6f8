"""What a start leaves of a folder when a user's error ends it, before training has begun and after."""

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from alexnet_lab import files
from alexnet_lab.errors import FAILED, INTERRUPTED, USER_ERROR, UserError
from alexnet_lab.launch import ending, ownership, running, starting
from alexnet_lab.launch.planning import Plan
from alexnet_lab.runs import folders, result_file

SETTINGS = {"run": "mine", "seed": 1}


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.name != folders.LOCK}


def own(folder: Path, error: Exception, begins: bool, continues: bool = False) -> int:
    """A run in this process that ends with `error`, before or after its training has begun."""

    def run() -> int:
        (folder / folders.METRICS).write_text("epoch,step\n")
        if not continues:
            (folder / folders.LEFT_OUT).write_text("[]")
        if begins:
            folders.training_begins(folder)
        return ending.fail(folder, error)

    return running._own(Plan(folder, SETTINGS, continues), run)


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """The folder of a run that has finished."""
    folder = tmp_path / "run"
    folder.mkdir()
    ownership.claim(folder, {"run": "mine", "seed": 0})
    result_file.write_result(folder / folders.RESULT, "finished", final={"test/top1": 0.5})
    return folder


def test_users_error_before_training_leaves_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    assert own(folder, UserError("there is no data"), begins=False) == USER_ERROR
    assert not folder.exists()
    assert capsys.readouterr().err == "error: there is no data\n"


def test_users_error_before_training_leaves_the_other_files_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "job.log").write_text("mine")
    (tmp_path / "train.old.log").write_text("mine too")
    assert own(tmp_path, UserError("there is no data"), begins=False) == USER_ERROR
    assert contents(tmp_path) == {
        "job.log": "mine",
        "train.old.log": "mine too",
    }


def test_users_error_before_training_leaves_the_record_of_a_resumed_run_byte_for_byte(finished: Path) -> None:
    before = contents(finished)
    assert own(finished, UserError("there is no data"), begins=False, continues=True) == USER_ERROR
    assert contents(finished) == before | {"metrics.csv": "epoch,step\n"}


@pytest.mark.parametrize("error", [UserError("a.jpg cannot be read"), ValueError("a.jpg cannot be read")])
def test_resumed_run_that_fails_after_training_has_begun_does_not_get_back_its_old_result(
    error: Exception, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert own(finished, error, begins=True, continues=True) == FAILED
    result = result_file.read_result(finished / folders.RESULT)
    assert result is not None
    assert (result["status"], result["rank"]) == ("failed", 0)
    assert "a.jpg cannot be read" in result["error"]
    assert folders.read_config(finished)["seed"] == 1
    *traceback, last = capsys.readouterr().err.splitlines()
    assert bool(traceback) == (type(error) is ValueError)
    assert "a.jpg cannot be read; start again with: python src/train.py resume=" in last


def test_start_that_was_killed_before_training_is_undone_by_the_next_one(finished: Path) -> None:
    before = contents(finished)
    starting.prepare(finished, {"run": "mine", "seed": 7}, continues=True)
    assert not folders.training_has_begun(finished)
    assert result_file.read_end(finished / folders.RESULT) == result_file.NO_END
    own(finished, UserError("there is no data"), begins=False, continues=True)
    assert contents(finished) == before | {"metrics.csv": "epoch,step\n"}


def test_refused_start_is_undone_on_a_full_disk(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(finished)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def run() -> int:
        monkeypatch.setattr(files, "write", full)
        return USER_ERROR

    assert running._own(Plan(finished, SETTINGS, continues=True), run) == USER_ERROR
    assert contents(finished) == before


@pytest.mark.parametrize("writes", [0, 1, 2, 3])
def test_start_that_cannot_be_prepared_on_a_full_disk_leaves_the_record(
    writes: int, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, write, done = contents(finished), files.write, []

    def full(path: Path, content: str | bytes) -> None:
        if len(done) == writes:
            raise OSError(errno.ENOSPC, "No space left on device")
        done.append(path)
        write(path, content)

    monkeypatch.setattr(files, "write", full)
    with pytest.raises(UserError, match="cannot be written: No space left on device"):
        running._own(Plan(finished, SETTINGS, continues=True), lambda: 0)
    assert contents(finished) == before


def test_refused_start_leaves_what_the_user_put_into_the_folder_since(tmp_path: Path) -> None:
    starting.prepare(tmp_path, SETTINGS, continues=False)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "wandb").mkdir()
    starting.undo(tmp_path)
    assert contents(tmp_path) == {"notes.txt": "mine"}


def test_rank_of_torchrun_does_not_take_the_note_of_an_older_start_for_that_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"RUN_ID": "none", "RESTART_COUNT": "0"}.items():
        monkeypatch.setenv(f"TORCHELASTIC_{name}", value)
    assert not starting.has_prepared(tmp_path)
    starting.prepare(tmp_path, SETTINGS, continues=False)
    assert starting.has_prepared(tmp_path)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert not starting.has_prepared(tmp_path)
    starting.prepare(tmp_path, SETTINGS, continues=True)
    assert starting.has_prepared(tmp_path)


def test_killed_run_is_reported_when_it_is_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ownership.claim(tmp_path, SETTINGS)
    running._own(Plan(tmp_path, SETTINGS, True, tmp_path / folders.LAST), lambda: 0)
    line = f"failed: the process was killed (out of memory?); continuing from {tmp_path}/checkpoints/last.ckpt"
    assert line in capsys.readouterr().err


def test_start_that_another_rank_refuses_after_training_has_begun_is_kept_as_failed(tmp_path: Path) -> None:
    ownership.claim(tmp_path, SETTINGS)
    result_file.write_result(tmp_path / folders.RESULT, "refused", error="rank 1 has no data", rank=1)
    assert ending.conclude(tmp_path, USER_ERROR) == FAILED
    result = json.loads((tmp_path / folders.RESULT).read_text())
    assert (result["status"], result["error"], result["rank"]) == ("failed", "rank 1 has no data", 1)


def test_lost_connection_waits_for_the_reason_of_the_rank_that_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(result_file, "OTHERS_SECONDS", 0.1)
    lost = RuntimeError("[pair.cc:534] Connection closed by peer [127.0.0.1]:1234. GLHF!")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert ending.fail(tmp_path, lost) == FAILED
    result = result_file.read_result(tmp_path / folders.RESULT)
    assert result is not None
    assert result["error"].startswith("another rank ended without recording a reason; was it killed (out of memory?)")
    result_file.write_result(tmp_path / folders.RESULT, "failed", error="a.jpg cannot be read", rank=1)
    assert ending.fail(tmp_path, lost) == FAILED
    assert (result_file.read_result(tmp_path / folders.RESULT) or {})["error"] == "a.jpg cannot be read"


def test_joined_rank_reports_its_own_reason_only_and_waits_for_rank_0_to_undo_a_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending, "UNDO_SECONDS", 0.1)
    result_file.write_result(tmp_path / folders.RESULT, "failed", error="a.jpg cannot be read", rank=1)
    assert [ending.conclude(tmp_path, FAILED, rank) for rank in (0, 1, 2)] == [FAILED] * 3
    assert capsys.readouterr().err.count("failed on rank 1: a.jpg cannot be read; start again with: ") == 1
    starting.prepare(tmp_path / "", SETTINGS, continues=False)
    result_file.write_result(tmp_path / folders.RESULT, "refused", error="rank 1 has no data", rank=1)
    assert ending.conclude(tmp_path, USER_ERROR, rank=1) == USER_ERROR  # rank 0 is gone
    assert capsys.readouterr().err == "error: rank 1 has no data\n"
    assert ending.conclude(tmp_path, USER_ERROR, rank=0) == USER_ERROR
    assert capsys.readouterr().err == "error: rank 1 has no data\n"
    assert not (tmp_path / folders.CONFIG).exists()


def test_reason_of_an_interruption_is_printed_with_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / folders.LAST).touch()
    result_file.write_result(tmp_path / folders.RESULT, "interrupted", error=None, reason="max_time")
    assert ending.conclude(tmp_path, INTERRUPTED) == INTERRUPTED
    line = f"interrupted (max_time); continue with: python src/train.py resume={tmp_path}\n"
    assert capsys.readouterr().err == line


@pytest.mark.parametrize("status", [7, 134, -9])
def test_every_other_end_is_status_1(status: int, tmp_path: Path) -> None:
    assert ending.conclude(tmp_path, status) == FAILED
