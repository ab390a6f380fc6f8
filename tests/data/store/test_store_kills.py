"""After kill -9 at any moment, the same command continues and produces the same bytes."""

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from tests.data.sources.layouts import tree
from tests.data.store.conftest import as_imagenet

from alexnet_lab.data.store.prepare import prepare
from alexnet_lab.data.store.reading import open_store
from alexnet_lab.errors import UserError

PROGRAM = """
import os, signal, sys
from pathlib import Path

from alexnet_lab.data.store import prepare as module
from alexnet_lab.data.store.writing import StoreWriter

calls = 0

def deadly(function, last_call):
    def call(*arguments):
        global calls
        calls += 1
        if calls == last_call:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)
    return call

if __name__ == "__main__":
    source, target, form, workers, last_call = sys.argv[1:]
    often = {"chunk_images": 3, "save_seconds": 0}
    for owner, name in ((os, "fsync"), (os, "replace"), (os, "rename"), (os, "truncate"), (StoreWriter, "append")):
        setattr(owner, name, deadly(getattr(owner, name), int(last_call)))
    module._tidy = deadly(module._tidy, int(last_call))
    module.prepare(Path(source), Path(target), name="x", format=form, workers=int(workers), **often)
    print(calls)
"""


@pytest.fixture
def start(script, tmp_path):
    """Prepare a store in a process that kills itself at the `last_call`."""

    def begin(source: Path, target: Path, form: str, workers: int, last_call: int) -> subprocess.Popen:
        (tmp_path / "program.py").write_text(PROGRAM)
        environment = script.environment | {"PYTHONPATH": str(Path("src").absolute())}
        words = [str(word) for word in (source, target, form, workers, last_call)]
        return script.start(*words, program=(str(tmp_path / "program.py"),), env=environment)

    return begin


@pytest.mark.parametrize("form", ["uint8", "jpeg"])
def test_kill_at_any_write_ends_in_identical_bytes(small_images, tmp_path, contents, form, start):
    source = tree(tmp_path / "source", small_images)
    whole = start(source, tmp_path / "whole", form, 1, 0)
    output, errors = whole.communicate(timeout=60)
    assert whole.returncode == 0, errors
    steps = int(output)
    rng = random.Random(form)
    target = tmp_path / "store"
    kills = 0
    while kills < 10:
        process = start(source, target, form, 1, rng.randint(1, steps))
        _, errors = process.communicate(timeout=60)
        if process.returncode == -signal.SIGKILL:
            kills += 1
            if not target.exists():
                with pytest.raises(UserError, match="there is no store"):
                    open_store(target)
        else:
            assert process.returncode == 0, errors
            assert contents(target) == contents(tmp_path / "whole")
            shutil.rmtree(target)
    prepare(source, target, name="x", format=form, workers=1)
    assert contents(target) == contents(tmp_path / "whole")


@pytest.mark.system
def test_kills_at_random_times_end_in_identical_bytes_and_leave_no_process(photographs, tmp_path, contents, start):
    source = tree(tmp_path / "source", as_imagenet(photographs[:120]))
    begin = time.monotonic()
    whole = start(source, tmp_path / "whole", "uint8", 2, 0)
    assert whole.wait(120) == 0
    seconds = time.monotonic() - begin
    rng = random.Random(0)
    target = tmp_path / "store"
    kills = finished = 0
    while kills < 10 or not finished:
        process, begin = start(source, target, "uint8", 2, 0), time.monotonic()
        try:
            process.wait(rng.uniform(0, seconds) if kills < 10 else 120)
            # The first duration is unreliable if the machine's speed changes; later kills should still hit a process.
            seconds = min(seconds, time.monotonic() - begin)
        except subprocess.TimeoutExpired:
            process.kill()
            kills += 1
        process.communicate(timeout=120)
        deadline = time.monotonic() + 10
        while is_alive(process.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not is_alive(process.pid), "workers outlive the process that started them"
        if process.returncode == 0:
            finished += 1
            assert contents(target) == contents(tmp_path / "whole")
            shutil.rmtree(target)


def is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
