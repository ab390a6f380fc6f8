"""Checkpoints that are written in the background: what is in the file, the order of files, errors, kills."""

import errno
import json
import signal
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from alexnet_lab import files, training
from alexnet_lab.callbacks.checkpoint_io import AtomicCheckpointIO
from alexnet_lab.callbacks.host_copy import HostCopy, _host_memory
from alexnet_lab.errors import RunFailed

SMALL = (
    *("model=lenet", "data=synthetic", "data.channels=1", "data.stored_size=28", "data.train_size=96"),
    *("data.batch_size=32", "data.val_size=32", "data.test_size=32", "optimizer.lr=0.05", "logger=none"),
    *("trainer=cpu", "trainer.max_epochs=3", "callbacks.pictures=null", "callbacks.progress=null"),
)


class Gate:
    """Holds back whatever is written until `open`; `waits` tells that a write has come."""

    def __init__(self) -> None:
        self.waits, self._open = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.waits.set()
        assert self._open.wait(20)

    def open(self) -> None:
        self._open.set()


@pytest.fixture
def gate() -> Iterator[Gate]:
    one = Gate()
    yield one
    one.open()


def background(*paths: Path, payload: Any = MappingProxyType({}), **more: Any) -> AtomicCheckpointIO:
    """A writer that also writes checkpoints of the CPU in the background."""
    return AtomicCheckpointIO(payload, paths, also_on_cpu=True, **more)


def momentum_net() -> tuple[nn.Module, torch.optim.Optimizer, Callable[[], None]]:
    """A network with running statistics, its optimizer with `step` tensors, and a training step."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    net.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
    images = torch.rand(5, 3, 4, 4)

    def step() -> None:
        optimizer.zero_grad()
        net(images).square().sum().backward()
        optimizer.step()

    step()
    return net, optimizer, step


def everything(net: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """A checkpoint with every kind of content, which training changes in place."""
    shared = torch.arange(12.0)
    return {
        "state_dict": net.state_dict(),
        "optimizer_states": [optimizer.state_dict()],
        "rng": torch.get_rng_state(),
        "kinds": [torch.zeros(3, dtype=dtype) for dtype in (torch.bfloat16, torch.float64, torch.int64, torch.bool)],
        "views": (shared, shared[3:7], shared.view(3, 4).t(), torch.empty(0), torch.tensor(7)),
        "others": {"sparse": torch.eye(3).to_sparse(), "weight": nn.Parameter(torch.ones(2)), "none": None},
        "schedule": {"last_lr": [0.1], "milestones": {1: {"gamma": [0.5]}}},
        "callbacks": OrderedDict(Stopwatch={"validated_at": {5: 1.5}}),
    }


def change(content: Any) -> None:
    """Change every tensor and every list and dictionary in place."""
    if isinstance(content, Tensor) and content.layout == torch.strided:
        content.detach().zero_()
    elif isinstance(content, dict):
        for value in content.values():
            change(value)
        content["later"] = 1
    elif isinstance(content, list | tuple):
        for value in content:
            change(value)
        if isinstance(content, list):
            content.append("later")


def test_file_has_the_bytes_of_the_moment_of_the_call(tmp_path: Path, gate: Gate) -> None:
    net, optimizer, step = momentum_net()
    checkpoint, path = everything(net, optimizer), tmp_path / "last.ckpt"
    AtomicCheckpointIO({"seed": 1}).save_checkpoint(checkpoint, tmp_path / "at_once.ckpt")
    writer = background(path, progress=gate, payload={"seed": 1})
    writer.save_checkpoint(checkpoint, path)
    assert gate.waits.wait(20)
    step()
    change(checkpoint)
    gate.open()
    writer.wait()
    assert path.read_bytes() == (tmp_path / "at_once.ckpt").read_bytes()


def test_shared_memory_and_strides_are_kept() -> None:
    net, optimizer, _ = momentum_net()
    copied, _ = HostCopy().of(everything(net, optimizer))
    whole, part, turned, *_ = copied["views"]
    whole[4] = -1.0
    assert (part[1], turned[0, 1]) == (-1.0, -1.0)
    weight = copied["state_dict"]["0.weight"]
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert copied["state_dict"]._metadata == net.state_dict()._metadata  # type: ignore[attr-defined]


def test_copies_work_without_page_locked_memory(caplog: pytest.LogCaptureFixture) -> None:
    assert _host_memory(10, page_locked=not torch.cuda.is_available()).nbytes == 10
    assert torch.cuda.is_available() or "no page-locked memory for checkpoints" in caplog.text


def test_memory_is_used_again_and_is_no_larger_than_the_tensors() -> None:
    one, state = HostCopy(), {"weights": torch.ones(1000), "more": torch.ones(24, dtype=torch.float64)}
    places = {one.of(state)[0]["weights"].data_ptr() for _ in range(3)}
    one.of({"weights": torch.ones(10)})
    places.add(one.of(state)[0]["weights"].data_ptr())
    assert len(places) == 1
    assert 4000 + 192 <= one.nbytes < 4000 + 192 + 2 * 64


def names_replaced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that get their final content, in this order."""
    names: list[str] = []
    move_over = files.move_over

    def noted(source: Path, target: Path) -> None:
        move_over(source, target)
        names.append(target.name)

    monkeypatch.setattr(files, "move_over", noted)
    return names


def test_files_are_written_one_at_a_time_in_order_and_only_the_same_file_is_waited_for(
    tmp_path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced = names_replaced(monkeypatch)
    best, last, other = (tmp_path / name for name in ("best.ckpt", "last.ckpt", "other.ckpt"))
    writer = background(best, last, progress=gate)
    writer.save_checkpoint({"epoch": 1}, best)
    writer.save_checkpoint({"epoch": 2}, last)
    assert gate.waits.wait(20)
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".ckpt"] == []
    assert [path.name.partition(".ckpt")[0].strip(".") for path in tmp_path.iterdir()] == ["best"]

    again = threading.Thread(target=writer.save_checkpoint, args=({"epoch": 3}, best))
    again.start()
    again.join(0.2)
    assert again.is_alive()
    gate.open()
    again.join()
    writer.save_checkpoint({"epoch": 4}, other)  # not one of those that are written in the background
    assert replaced == ["best.ckpt", "last.ckpt", "best.ckpt", "other.ckpt"]
    assert torch.load(best, weights_only=True) == {"epoch": 3}


def test_reading_and_removing_a_file_wait_until_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    writer = background(path)
    for epoch in range(3):
        writer.save_checkpoint({"epoch": epoch}, path)
        assert writer.load_checkpoint(path)["epoch"] == epoch
    writer.save_checkpoint({"epoch": 3}, path)
    writer.remove_checkpoint(path)
    assert not path.exists()


def fill_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(content: Any, file: Any) -> None:
        file.write(b"half a checkpoint")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", refuse)


def test_failed_write_is_raised_once_and_keeps_the_older_file_and_nothing_is_written_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    best, last = tmp_path / "best.ckpt", tmp_path / "last.ckpt"
    writer = background(best, last)
    writer.save_checkpoint({"epoch": 1}, best)
    writer.wait()
    with monkeypatch.context() as full:
        fill_the_disk(full)
        writer.save_checkpoint({"epoch": 2}, best)
        writer.teardown()
    assert caplog.messages == [f"{best} cannot be written: No space left on device"]
    for action in (writer.check, writer.wait, lambda: writer.save_checkpoint({"epoch": 2}, last)):
        with pytest.raises(RunFailed, match=r"best\.ckpt cannot be written: No space left on device"):
            action()
    writer.teardown()
    assert len(caplog.messages) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["best.ckpt"]
    assert torch.load(best, weights_only=True) == {"epoch": 1}


def test_write_that_was_queued_behind_a_failed_one_is_dropped(
    tmp_path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    best, last = tmp_path / "best.ckpt", tmp_path / "last.ckpt"
    writer = background(best, last, progress=gate)
    fill_the_disk(monkeypatch)
    writer.save_checkpoint({"epoch": 1}, best)
    writer.save_checkpoint({"epoch": 1}, last)
    gate.open()
    with pytest.raises(RunFailed, match="best"):
        writer.wait()
    assert list(tmp_path.iterdir()) == []


def test_writer_reports_each_tensor_and_keeps_no_process_alive(tmp_path: Path) -> None:
    calls: list[bool] = []
    path, weights = tmp_path / "last.ckpt", [torch.ones(3) for _ in range(7)]
    writer = background(path, progress=lambda: calls.append(threading.current_thread().daemon))
    writer.save_checkpoint({"weights": weights}, path)
    writer.wait()
    assert len(calls) > 7
    assert all(calls)
    assert "writer" not in {thread.name for thread in threading.enumerate()}


# Whole runs.


@pytest.fixture
def run(
    settings: Callable[..., dict[str, Any]], as_in_a_rank: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Path]]:
    """Train in a folder of the test's; all checkpoints are written in the background."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(training, "AtomicCheckpointIO", partial(AtomicCheckpointIO, also_on_cpu=True))

    def start(*more: str, name: str = "run", resume: bool = False, **options: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "result.json").unlink(missing_ok=True)
        checkpoint = folder / "checkpoints" / "last.ckpt" if resume else None
        training.train(settings(*SMALL, *more), folder, checkpoint, 0.0, **options)
        return folder

    yield start
    torch.set_num_threads(threads)


def result(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return content


class FullAfter:
    """`torch.save` that finds the disk full after `count` checkpoints."""

    def __init__(self, count: int) -> None:
        self._count, self._save = count, torch.save

    def __call__(self, content: Any, file: Any) -> None:
        self._count -= 1
        if self._count < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        self._save(content, file)


@pytest.mark.parametrize("saved", [2, 8])
def test_full_disk_fails_the_run_with_its_reason(
    saved: int, run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the first epoch, and at the end of the last one, before the test."""
    monkeypatch.setattr(torch, "save", FullAfter(saved))
    monkeypatch.setattr("alexnet_lab.callbacks.checkpoints.Checkpoints.validated", lambda *_, **__: None)
    steps = "checkpoints.every_minutes=1e-9"
    with pytest.raises(RunFailed, match=r"last\.ckpt cannot be written: No space left on device"):
        run(steps)
    found = result(tmp_path / "run")
    assert (found["status"], found["rank"]) == ("failed", 0)
    assert found["error"].endswith("checkpoints/last.ckpt cannot be written: No space left on device")
    assert found["checkpoints"] == {"last": "checkpoints/last.ckpt"}
    assert "test/top1" not in found["final"]


def test_full_disk_at_a_request_to_stop_fails_the_run(
    run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "save", FullAfter(0))
    asked: list[bool] = []
    with pytest.raises(RunFailed, match=r"last\.ckpt cannot be written"):
        run(stop_requested=lambda: bool(asked.append(True) or len(asked) > 1))
    assert result(tmp_path / "run")["status"] == "failed"


def test_failed_run_records_the_checkpoint_that_was_being_written(
    run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, step = torch.save, threading.Event()

    def slow(content: Any, file: Any) -> None:
        step.wait(0.3)
        save(content, file)

    monkeypatch.setattr(torch, "save", slow)
    with pytest.raises(RuntimeError, match="crash on purpose"):
        run("+callbacks.at={_target_: callbacks_for_tests.Crash, step: 4, hook: on_train_batch_start}")
    found = result(tmp_path / "run")
    assert found["checkpoints"] == {"last": "checkpoints/last.ckpt", "best": "checkpoints/best.ckpt"}


def test_run_continued_after_a_crash_has_the_same_weights_and_metrics(run: Callable[..., Path], tmp_path: Path) -> None:
    steps = ("checkpoints.every_minutes=1e-9", "optimizer=adamw", "model.dropout=0.3", "trainer.log_every_n_steps=1")
    whole = run(*steps, name="whole")
    crash = "+callbacks.at={_target_: callbacks_for_tests.Crash, step: STEP, hook: on_train_batch_start}"
    for start, step in enumerate(("4", "5")):
        with pytest.raises(RuntimeError, match="crash on purpose"):
            run(*steps, crash.replace("STEP", step), resume=start > 0)
    folder = run(*steps, resume=True)
    assert (folder / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()
    for name in ("last.ckpt", "best.ckpt"):
        ours, theirs = (torch.load(path / "checkpoints" / name, weights_only=True) for path in (folder, whole))
        assert all(torch.equal(value, theirs["state_dict"][key]) for key, value in ours["state_dict"].items())


def test_peak_memory_is_recorded(run: Callable[..., Path], tmp_path: Path) -> None:
    run("trainer.max_epochs=1")
    assert result(tmp_path / "run")["peak_memory_mb"].keys() == {"process"}
    assert 50 < result(tmp_path / "run")["peak_memory_mb"]["process"] < 1e5


# Kills.


def test_file_is_whole_after_each_of_20_kills(script: Any, tmp_path: Path) -> None:
    program = (str(Path(__file__).with_name("kills_while_writing.py")), str(tmp_path))
    ended = script.run(program=program)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["killed"] == [-signal.SIGKILL] * 20
    assert found["whole"] == [True] * 20
    assert found["during a write"] >= 5  # unfinished files next to the last complete one
