"""Files are written atomically, created once and locked, also on file systems with fewer features than ext4."""

import errno
import fcntl
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock._soft
import pytest

from alexnet_lab import files, locks
from alexnet_lab.errors import UserError
from alexnet_lab.launch import ownership

REFUSALS = (errno.EPERM, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EACCES, errno.EAGAIN)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refusal(number: int) -> Callable[..., Any]:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.fixture
def dead() -> int:
    """The id of an ended process."""
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    return process.pid


@pytest.fixture
def no_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", refusal(errno.ENOLCK))


@pytest.fixture
def no_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulates NFS, SMB and FUSE."""
    monkeypatch.setattr(filelock._soft, "exchange_names", lambda *_: False)


def marker(folder: Path, pid: int, host: str | None = None) -> Path:
    path = folder / ".lock.held"
    path.write_text(f"{pid}\n{host or locks._host()}\n")
    return path


def test_written_file_has_the_new_content_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write(path, "one")
    files.write(path, "猫")
    assert path.read_bytes() == "猫".encode()
    assert names(tmp_path) == ["a.json"]


def test_error_while_writing_keeps_the_old_content_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write(path, "one")
    with pytest.raises(IsADirectoryError), files.replacing(path) as unfinished:
        (unfinished.write_text("half"), tmp_path.read_text())
    assert path.read_text() == "one"
    assert names(tmp_path) == ["a.json"]


def test_full_disk_keeps_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    files.write(path, "one")
    monkeypatch.setattr(os, "fsync", refusal(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left"):
        files.write(path, "two")
    assert path.read_text() == "one"
    assert names(tmp_path) == ["a.json"]


def test_symbolic_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "real")
    files.write(tmp_path / "link", "text")
    assert (tmp_path / "link").is_symlink()
    assert names(tmp_path / "disk") == ["real"]


def test_name_of_255_bytes_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("猫" * 85)
    files.write(path, "x")
    assert path.read_text() == "x"


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EACCES])
def test_file_system_without_fsync_is_supported(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", refusal(number))
    files.write(tmp_path / "a", "x")
    assert (tmp_path / "a").read_text() == "x"


def test_folder_that_cannot_be_opened_for_fsync_is_supported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def refuse_folders(path: Any, *more: Any) -> int:
        if os.path.isdir(path):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        return opened(path, *more)

    monkeypatch.setattr(os, "open", refuse_folders)
    files.write(tmp_path / "a", "x")
    assert (tmp_path / "a").read_text() == "x"


@pytest.mark.parametrize("number", [errno.EEXIST, errno.EACCES, errno.EPERM, errno.EINVAL])
def test_file_system_that_cannot_rename_over_files_is_supported(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def to_free_names(source: Any, target: Any) -> None:
        if os.path.exists(target):
            raise OSError(number, os.strerror(number))
        rename(source, target)

    monkeypatch.setattr(os, "replace", to_free_names)
    monkeypatch.setattr(os, "rename", to_free_names)
    for text in ("one", "two"):
        files.write(tmp_path / "a", text)
        assert (tmp_path / "a").read_text() == text
    assert names(tmp_path) == ["a"]
    (tmp_path / "new").mkdir()
    (tmp_path / "new.partial").mkdir()
    files.rename_folder(tmp_path / "new.partial", tmp_path / "new")
    assert names(tmp_path) == ["a", "new"]


def test_tree_is_copied_where_times_and_permissions_cannot_be_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "x.py").write_text("1")
    files.copy_tree(tmp_path / "a", tmp_path / "kept")
    assert (tmp_path / "kept/b/x.py").stat().st_mtime == (tmp_path / "a/b/x.py").stat().st_mtime
    for name in ("chmod", "utime"):
        monkeypatch.setattr(os, name, refusal(errno.EPERM))
    files.copy_tree(tmp_path / "a", tmp_path / "copied")
    assert (tmp_path / "copied/b/x.py").read_text() == "1"


def test_one_of_many_threads_creates_a_file_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", refusal(errno.EOPNOTSUPP))
    path, created = tmp_path / "a", []

    def create(number: int) -> None:
        try:
            files.create(path, str(number))
        except FileExistsError:
            return
        created.append(str(number))

    threads = [threading.Thread(target=create, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert created == [path.read_text()]
    assert names(tmp_path) == ["a"]


def test_file_is_created_despite_the_marker_of_a_killed_process(tmp_path: Path, dead: int, no_exchange: None) -> None:
    (tmp_path / ".a.held").write_text(f"{dead}\n{locks._host()}\n")
    files.create(tmp_path / "a", "x")
    assert names(tmp_path) == ["a"]


def test_unfinished_files_of_killed_processes_are_removed_by_the_next_owner(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    for name in (".config.yaml.0badcafe.writing", "checkpoints/.last.ckpt.0badcafe.writing"):
        (tmp_path / name).touch()
    with ownership.lock(tmp_path):
        assert names(tmp_path) == [".lock", "checkpoints"]
        assert names(tmp_path / "checkpoints") == []


def test_file_set_aside_by_a_killed_process_is_restored(tmp_path: Path) -> None:
    for name in (".last.ckpt.0badcafe.old", ".best.ckpt.0badcafe.old", "best.ckpt"):
        (tmp_path / name).touch()
    files.tidy(tmp_path)
    assert names(tmp_path) == ["best.ckpt", "last.ckpt"]


@pytest.mark.parametrize("number", REFUSALS)
def test_folder_is_locked_without_flock(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fcntl, "flock", refusal(number))
    with ownership.lock(tmp_path):
        assert names(tmp_path) == [".lock.held"]
        with pytest.raises(UserError) as refused:
            ownership.lock(tmp_path)
    assert names(tmp_path) == []
    first, second = str(refused.value).splitlines()
    holder = f"pid {os.getpid()} on {socket.gethostname()}"
    assert first == f"run {tmp_path.name} is being written by another process ({holder})"
    assert second == f"if that process has ended, delete its lock file: rm {tmp_path}/.lock.held"
    (line,) = caplog.messages
    assert line == f"{tmp_path} has no file locks ({os.strerror(number)}); using the marker file .lock.held instead"


@pytest.mark.usefixtures("no_flock")
def test_lock_of_a_dead_process_of_this_machine_is_taken_over_at_once(tmp_path: Path, dead: int) -> None:
    marker(tmp_path, dead)
    with ownership.lock(tmp_path):
        assert (tmp_path / ".lock.held").read_text().startswith(f"{os.getpid()}\n")
    assert names(tmp_path) == []


@pytest.mark.usefixtures("no_flock", "no_exchange")
def test_released_marker_that_could_not_be_removed_is_not_a_lock(tmp_path: Path) -> None:
    (tmp_path / ".lock.held").write_text("filelock/released\n")
    assert not locks.is_held(tmp_path / ".lock")
    with ownership.lock(tmp_path):
        assert names(tmp_path) == [".lock.held"]


@pytest.mark.usefixtures("no_flock", "no_exchange")
def test_lock_of_a_dead_process_is_taken_over_without_renaming(tmp_path: Path, dead: int) -> None:
    marker(tmp_path, dead)
    with ownership.lock(tmp_path):
        assert (tmp_path / ".lock.held").read_text().startswith(f"{os.getpid()}\n")
    assert names(tmp_path) == []


@pytest.mark.usefixtures("no_flock")
def test_lock_of_another_machine_is_reported_with_the_remedy(tmp_path: Path, dead: int) -> None:
    folder = tmp_path / "it's a run"
    folder.mkdir()
    path = marker(folder, dead, "node7?pidns-f0000001")
    with pytest.raises(UserError) as refused:
        ownership.lock(folder)
    first, second = str(refused.value).splitlines()
    assert first.endswith(f"(pid {dead} on node7)")
    subprocess.run(["bash", "-c", second.partition(": ")[2]], check=True)
    assert not path.exists()
    with ownership.lock(folder):
        pass


@pytest.mark.usefixtures("no_flock")
def test_new_lock_of_a_living_process_is_not_removed(tmp_path: Path, dead: int) -> None:
    path = marker(tmp_path, os.getpid())
    locks._take_away(path, f"{dead}\n{locks._host()}")
    assert path.read_text().startswith(f"{os.getpid()}\n")
    assert names(tmp_path) == [".lock.held"]


def test_own_machine_is_recorded_as_filelock_records_it(tmp_path: Path) -> None:
    with locks.hold_marker(tmp_path / "m", "it", 0):
        assert locks._holder(locks._read(tmp_path / "m")) == (str(os.getpid()), locks._host())


def test_disk_that_is_full_leaves_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "open", refusal(errno.ENOSPC))
    with pytest.raises(
        UserError, match=r"^.* cannot be written: No space left on device\nto put runs elsewhere: hydra"
    ):
        ownership.lock(tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_refused_claim_is_reported_in_one_line_and_leaves_nothing(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "write_bytes", refusal(number))
    with pytest.raises(UserError, match=f"{tmp_path} cannot be written: {os.strerror(number)}"):
        ownership.claim(tmp_path, {"seed": 1})
    assert names(tmp_path) == []


def test_held_lock_is_visible_to_others_and_a_released_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    assert not locks.is_held(path)
    with locks.lock(path, "it"):
        assert locks.is_held(path)
    assert not locks.is_held(path)


@pytest.mark.usefixtures("no_flock")
def test_held_marker_is_visible_to_others_and_a_dead_one_is_not(tmp_path: Path, dead: int) -> None:
    path = tmp_path / ".lock"
    with locks.lock(path, "it"):
        assert locks.is_held(path)
    assert not locks.is_held(path)
    marker(tmp_path, dead)
    assert not locks.is_held(path)
    marker(tmp_path, dead, "node7")
    assert locks.is_held(path)
