"""A trial asks after each epoch whether it ends, and a pruned run is saved. Whole runs in this process."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from alexnet_lab.callbacks import question
from alexnet_lab.callbacks.question import Question
from alexnet_lab.runs.metric_rows import read_rows
from alexnet_lab.training import train

SMALL = (
    *("model=lenet", "data=synthetic", "data.channels=1", "data.stored_size=28", "data.train_size=64"),
    *("data.batch_size=32", "data.val_size=32", "data.test_size=32", "optimizer.lr=0.05", "logger=none"),
    *("trainer=cpu", "trainer.max_epochs=3", "callbacks.pictures=null", "callbacks.progress=null"),
)
Start = Callable[..., dict[str, Any]]


@pytest.fixture
def start(settings: Callable[..., dict[str, Any]], as_in_a_rank: None, tmp_path: Path) -> Iterator[Start]:
    """Starts or continues the run; its `result.json`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def run(*overrides: str) -> dict[str, Any]:
        (tmp_path / "result.json").unlink(missing_ok=True)
        last = tmp_path / "checkpoints" / "last.ckpt"
        train(settings(*SMALL, *overrides), tmp_path, last if last.exists() else None, 0.0)
        content: dict[str, Any] = json.loads((tmp_path / "result.json").read_text())
        return content

    yield run
    torch.set_num_threads(threads)


def steps_saved(folder: Path) -> int:
    return int(torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"])


def answered(monkeypatch: pytest.MonkeyPatch, answers: Sequence[Any]) -> list[int]:
    """Give these answers, of which an exception stands for a kill; the epochs that were asked about."""
    asked: list[int] = []
    left = list(answers)

    def ask(self: Question, epoch: int, waiting: Callable[[], bool]) -> bool:
        asked.append(epoch)
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return bool(answer)

    monkeypatch.setattr(Question, "ask", ask)
    monkeypatch.setenv(question.VARIABLE, "nowhere")
    return asked


def test_pruned_run_is_saved_and_not_tested(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answered(monkeypatch, [False, True])
    result = start()
    assert (result["status"], result["reason"], result["error"]) == ("pruned", "epoch 2", None)
    assert asked == [0, 1]
    assert steps_saved(tmp_path) == 4
    assert "test/top1" not in result["final"]
    assert [row["epoch"] for row in read_rows(tmp_path / "metrics.csv") if "val/top1" in row] == [0, 1]


def test_run_killed_before_its_answer_asks_again_before_it_trains(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = answered(monkeypatch, [False, ZeroDivisionError("killed"), True])
    with pytest.raises(ZeroDivisionError):
        start()
    assert start()["status"] == "pruned"
    assert asked == [0, 1, 1]
    assert steps_saved(tmp_path) == 4


def test_run_killed_after_its_last_epoch_asks_about_it(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    assert start("test_on=none")["status"] == "finished"
    asked = answered(monkeypatch, [True])
    result = start("test_on=none")
    assert (result["status"], result["reason"]) == ("pruned", "epoch 3")
    assert asked == [2]


def test_question_waits_for_its_answer_and_no_longer_than_it_may(tmp_path: Path) -> None:
    one = Question(tmp_path / "question")
    assert one.asked() is None
    waited = iter([True, False])
    assert one.ask(3, lambda: next(waited)) is False
    assert one.asked() == 3
    for answer in (True, False):
        found: list[bool] = []
        thread = threading.Thread(target=lambda: found.append(one.ask(4, lambda: True)))  # noqa: B023
        thread.start()
        while one.asked() != 4:
            time.sleep(0.001)
        one.answer(answer)
        thread.join()
        assert found == [answer]
        assert one.asked() is None
