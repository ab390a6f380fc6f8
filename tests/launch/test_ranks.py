"""Ranks that are tiny real programs: none outlives another, and the reason of an end is recorded."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from alexnet_lab.errors import INTERRUPTED
from alexnet_lab.launch import ranks, stopping
from alexnet_lab.launch.stopping import PassedOn
from alexnet_lab.runs import folders, result_file

SOURCE = str(Path(ranks.__file__).parents[2])


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "NOTICE_SECONDS", 0.2)


def run_ranks(command: list[str], folder: Path, count: int) -> int:
    with PassedOn([], folder) as stop:
        return ranks.run_ranks(command, folder, count, stop)


def program(text: str) -> list[str]:
    return [sys.executable, "-c", f"import os, signal, sys, time\nrank = int(os.environ['RANK'])\n{text}"]


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def wait_until(condition: Callable[[], Any], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s"
        time.sleep(0.01)


def result(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return content


def test_ranks_that_succeed_give_status_zero_and_no_result_of_the_parent(tmp_path: Path) -> None:
    assert run_ranks(program("sys.exit(0)"), tmp_path, 2) == 0
    assert not (tmp_path / "result.json").exists()


def test_each_rank_is_told_its_place_and_nothing_of_an_outer_launcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WORLD_SIZE", "SLURM_PROCID", "TORCHELASTIC_RUN_ID", "PL_GLOBAL_SEED", "WANDB_SERVICE"):
        monkeypatch.setenv(name, "8")
    write = "import json; json.dump(dict(os.environ), open(f'{sys.argv[1]}/{rank}.json', 'w'))"
    assert run_ranks([*program(write), str(tmp_path)], tmp_path, 2) == 0
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert [(one["RANK"], one["LOCAL_RANK"], one["WORLD_SIZE"], one["NODE_RANK"]) for one in found] == [
        ("0", "0", "2", "0"),
        ("1", "1", "2", "0"),
    ]
    assert found[0]["MASTER_PORT"] == found[1]["MASTER_PORT"]
    assert not {"SLURM_PROCID", "TORCHELASTIC_RUN_ID", "PL_GLOBAL_SEED", "WANDB_SERVICE"} & set(found[0])


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_rank_that_fails_ends_the_others_within_seconds(failing: int, tmp_path: Path) -> None:
    started = time.monotonic()
    status = run_ranks(program(f"sys.exit(7) if rank == {failing} else time.sleep(60)"), tmp_path, 3)
    assert status == 7
    assert time.monotonic() - started < 10
    assert result(tmp_path)["status"] == "failed"
    assert result(tmp_path)["error"] == f"rank {failing} ended with status 7"


def test_rank_that_stops_a_second_after_the_others_is_waited_for(tmp_path: Path) -> None:
    record = '{"status": "interrupted", "reason": "max_time"}'
    slow = f"time.sleep(0 if rank else 1)\nif rank == 0: open('{tmp_path}/result.json', 'w').write({record!r})"
    assert run_ranks(program(f"{slow}\nsys.exit(3)"), tmp_path, 2) == INTERRUPTED
    assert result(tmp_path) == {"status": "interrupted", "reason": "max_time"}


def test_rank_that_ignores_sigterm_is_killed_after_the_grace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "GRACE_SECONDS", 0.5)
    stubborn = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(1)\nsys.exit(1) if rank else time.sleep(60)"
    started = time.monotonic()
    assert run_ranks(program(stubborn), tmp_path, 2) == 1
    assert time.monotonic() - started < 10


def test_killed_rank_leaves_a_result_with_the_signal_and_the_last_lines_of_its_log(tmp_path: Path) -> None:
    (tmp_path / "train.rank1.log").write_text("".join(f"line {number}\n" for number in range(20)))
    kill = "os.kill(os.getpid(), signal.SIGKILL) if rank == 1 else time.sleep(60)"
    assert run_ranks(program(kill), tmp_path, 2) == -signal.SIGKILL
    first, *lines = result(tmp_path)["error"].splitlines()
    assert first == "rank 1 was killed by SIGKILL (out of memory?); the last lines of train.rank1.log:"
    assert lines == [f"line {number}" for number in range(15, 20)]


def test_what_a_rank_recorded_itself_is_kept(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"status": "failed", "error": "the loss became nan"}')
    assert run_ranks(program("sys.exit(1)"), tmp_path, 1) == 1
    assert result(tmp_path)["error"] == "the loss became nan"


@pytest.mark.parametrize("followed", [False, True])
def test_kill_replaces_only_a_reason_that_followed_from_it(followed: bool, tmp_path: Path) -> None:
    error = f"{result_file.PEER_GONE}: Connection closed by peer" if followed else "a.jpg cannot be read"
    (tmp_path / "result.json").write_text(json.dumps({"status": "failed", "error": error, "rank": 1}))
    abort = "os.kill(os.getpid(), signal.SIGABRT) if rank == 0 else time.sleep(60)"  # as NCCL ends the other ranks
    assert run_ranks(program(abort), tmp_path, 2) == -signal.SIGABRT
    assert result(tmp_path)["error"] == ("rank 0 was killed by SIGABRT" if followed else "a.jpg cannot be read")


def test_users_error_before_training_leaves_no_result(tmp_path: Path) -> None:
    (tmp_path / folders.NOTE).touch()
    assert run_ranks(program("sys.exit(2)"), tmp_path, 2) == 2
    assert not (tmp_path / "result.json").exists()


def test_what_other_ranks_print_is_in_their_logs(tmp_path: Path) -> None:
    run_ranks(program("print('hello of', rank)"), tmp_path, 2)
    assert (tmp_path / "train.rank1.log").read_text() == "hello of 1\n"


def test_handlers_are_as_before_when_it_has_ended(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    run_ranks(program("pass"), tmp_path, 1)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def parent_of(rank_program: str, folder: Path, count: int = 2) -> subprocess.Popen:
    """A parent in a process of its own; each rank writes its pid into `folder` when it is ready."""
    # In a `with`, since an exception of a signal handler is lost where a file is closed by its destructor.
    ready = f"with open({str(folder)!r} + f'/ready{{rank}}', 'w') as file: file.write(str(os.getpid()))"
    command = program(rank_program.replace("READY", ready))
    outer = (
        "import pathlib, sys; from alexnet_lab.launch import ranks, stopping\n"
        "ranks.NOTICE_SECONDS, ranks.GRACE_SECONDS = 0.2, 1.0\n"
        f"folder = pathlib.Path({str(folder)!r})\n"
        "with stopping.PassedOn([], folder) as stop:\n"
        f"    sys.exit(ranks.run_ranks({command!r}, folder, {count}, stop) % 256)"
    )
    environment = os.environ | {"PYTHONPATH": SOURCE}
    process = subprocess.Popen([sys.executable, "-c", outer], env=environment, start_new_session=True)
    files = [folder / f"ready{rank}" for rank in range(count)]
    wait_until(lambda: all(file.exists() and file.read_text() for file in files))
    return process


SAVES = """
def stop(*_):
    open(os.path.join({folder!r}, f"saved{{rank}}"), "w").close()
    sys.exit(3)
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, signal.SIG_IGN)
READY
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_request_to_stop_reaches_every_rank_as_sigterm(number: signal.Signals, tmp_path: Path) -> None:
    process = parent_of(SAVES.format(folder=str(tmp_path)), tmp_path)
    process.send_signal(number)
    assert process.wait(timeout=20) == 3
    assert {path.name for path in tmp_path.glob("saved*")} == {"saved0", "saved1"}


def test_second_request_kills(tmp_path: Path) -> None:
    process = parent_of("signal.signal(signal.SIGTERM, signal.SIG_IGN)\nREADY\ntime.sleep(60)", tmp_path)
    process.send_signal(signal.SIGTERM)
    time.sleep(stopping.SAME_REQUEST_SECONDS + 0.5)
    assert process.poll() is None
    for _ in range(3):  # on a busy machine the first may have been noticed less than a second ago
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)
            break
    assert process.poll() == INTERRUPTED


def test_run_stopped_before_a_rank_could_answer_is_interrupted_and_not_failed(tmp_path: Path) -> None:
    process = parent_of("READY\ntime.sleep(60)", tmp_path)  # like a rank that still imports
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == INTERRUPTED
    assert result(tmp_path)["status"] == "interrupted"


def test_request_before_training_ends_ranks_that_do_not_answer_and_records_nothing(tmp_path: Path) -> None:
    (tmp_path / folders.NOTE).touch()
    process = parent_of("signal.signal(signal.SIGTERM, signal.SIG_IGN)\nREADY\ntime.sleep(60)", tmp_path)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == INTERRUPTED
    assert not (tmp_path / "result.json").exists()


def test_rank_that_is_stopped_ends_the_run_and_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "LOOK_SECONDS", 0.1)
    stop = "os.kill(os.getpid(), signal.SIGSTOP) if rank == 1 else time.sleep(60)"
    assert run_ranks(program(stop), tmp_path, 2) == -signal.SIGKILL
    assert result(tmp_path)["error"] == "rank 1 was stopped (state T) for 1 s and was killed"


def test_killed_rank_is_named_and_not_the_one_that_followed(tmp_path: Path) -> None:
    record = f'open({str(tmp_path / "result.json")!r}, \'w\').write(\'{{"status": "failed", "error": "peer gone"}}\')'
    lost = f"os.kill(os.getpid(), signal.SIGKILL) if rank == 1 else (time.sleep(1), {record}, sys.exit(1))"
    assert run_ranks(program(lost), tmp_path, 2) == -signal.SIGKILL
    assert result(tmp_path)["error"] == "rank 1 was killed by SIGKILL (out of memory?)"


def test_ranks_end_when_the_parent_is_killed(tmp_path: Path) -> None:
    lifeline = f"sys.path.insert(0, {SOURCE!r})\nfrom alexnet_lab.launch.ranks import end_with_parent\n"
    process = parent_of(f"{lifeline}end_with_parent()\nREADY\ntime.sleep(60)", tmp_path)
    pids = [int((tmp_path / f"ready{rank}").read_text()) for rank in (0, 1)]
    assert all(alive(pid) for pid in pids)
    process.kill()
    process.wait()
    wait_until(lambda: not any(alive(pid) for pid in pids), seconds=5)


def test_rank_that_is_stopped_does_not_outlive_its_killed_parent(tmp_path: Path) -> None:
    text = "from alexnet_lab.launch import ranks; ranks.end_with_parent(); print(os.getpid(), flush=True)"
    rank = f"import os, signal; {text}; os.kill(os.getpid(), signal.SIGSTOP); signal.pause()"
    outer = "from alexnet_lab.launch import ranks, stopping; from pathlib import Path; import sys\n"
    outer += f"ranks.run_ranks([sys.executable, '-c', {rank!r}], Path({str(tmp_path)!r}), 2, stopping.PassedOn([]))"
    environment = os.environ | {"PYTHONPATH": SOURCE}
    process = subprocess.Popen([sys.executable, "-c", outer], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    number = int(process.stdout.readline())
    time.sleep(0.2)
    process.kill()
    process.wait()
    wait_until(lambda: not alive(number), seconds=5)
