"""Commands on several ranks, by a module without torch."""

import os
from pathlib import Path

import pytest

from alexnet_lab.errors import RunFailed, UserError
from alexnet_lab.launch.command_ranks import run_on_ranks

MODULE = """
import os, signal, sys, time
from alexnet_lab import distributed
from alexnet_lab.errors import UserError
from alexnet_lab.launch.command_ranks import rank_main

def work(options):
    if distributed.rank() == options["bad"]:
        if options["how"] == "user":
            raise UserError("no such image")
        if options["how"] == "defect":
            raise KeyError("missing")
        if options["how"] == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if options["how"] == "stopped":
            os.kill(os.getppid(), signal.SIGINT)
    elif options["how"]:
        time.sleep(60)
    return [distributed.rank(), distributed.ranks(), os.environ.get("OMP_NUM_THREADS")]

if __name__ == "__main__":
    sys.exit(rank_main(work))
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "ranks_for_tests.py").write_text(MODULE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)

    def start(how: str = "", bad: int = 1):
        try:
            return run_on_ranks("ranks_for_tests", {"how": how, "bad": bad}, 2)
        finally:
            assert [path.name for path in tmp_path.iterdir() if path.name.startswith("alexnet_lab-")] == []

    return start


def test_rank_0_returns_the_result_and_ranks_have_the_threads_of_one_process(run) -> None:
    assert run() == [0, 2, os.environ.get("OMP_NUM_THREADS")]


def test_users_error_of_a_rank_is_raised_and_the_others_end(run) -> None:
    with pytest.raises(UserError, match=r"^no such image$"):
        run("user")


def test_defect_of_a_rank_is_reported_with_its_traceback(run, capfd) -> None:
    with pytest.raises(RunFailed, match="rank 1 failed: KeyError: 'missing'"):
        run("defect")
    assert 'raise KeyError("missing")' in capfd.readouterr().err


def test_killed_rank_ends_the_others_and_is_named(run) -> None:
    with pytest.raises(RunFailed, match=r"rank 1 was killed by SIGKILL \(out of memory\?\)"):
        run("killed")


def test_request_to_stop_ends_all_ranks(run) -> None:
    with pytest.raises(KeyboardInterrupt):
        run("stopped")
