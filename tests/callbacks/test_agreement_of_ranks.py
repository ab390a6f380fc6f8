"""Ranks agree on what to do at the same step, and none of them waits for another one to do so."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from alexnet_lab.callbacks.agreement import Agreement
from alexnet_lab.callbacks.checkpoints import GO_ON, SAVE, STOP, TIME_IS_UP, Checkpoints

TWO: Any = SimpleNamespace(world_size=2, strategy=SimpleNamespace())
ONE: Any = SimpleNamespace(world_size=1)


@pytest.fixture
def group(as_in_a_rank: None, tmp_path: Path) -> None:
    """A group of one rank, in which collectives work as with others that request nothing."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)


def joined(trainer: Any) -> Agreement:
    ranks = Agreement()
    ranks.join(trainer)
    return ranks


def test_one_rank_agrees_at_once() -> None:
    ranks = joined(ONE)
    assert [ranks.strongest_before(request) for request in (3, 0, 2)] == [3, 0, 2]
    assert ranks.strongest(1) == 1


def test_several_ranks_answer_one_call_later(group: None) -> None:
    ranks = joined(TWO)
    assert [ranks.strongest_before(request) for request in (3, 0, 2, 0)] == [0, 3, 0, 2]


def test_answer_at_once_replaces_the_one_that_is_due(group: None) -> None:
    ranks = joined(TWO)
    ranks.strongest_before(3)
    assert ranks.strongest(1) == 1
    assert ranks.strongest_before(0) == 0
    ranks.strongest_before(2)
    ranks.forget()
    assert ranks.strongest_before(0) == 0


def at_step(step: int, **more: Any) -> Any:
    loop = SimpleNamespace(_can_stop_early=False, epoch_progress=SimpleNamespace(current=SimpleNamespace(processed=0)))
    return SimpleNamespace(global_step=step, max_steps=5, max_epochs=-1, should_stop=False, fit_loop=loop, **more)


def test_max_time_that_is_agreed_on_at_the_last_step_does_not_stop_a_complete_run(group: None, tmp_path: Path) -> None:
    callback = Checkpoints(tmp_path / "last", tmp_path / "best", every_minutes=10, keep=False, max_seconds=0)
    callback.setup(TWO, None, "fit")  # type: ignore[arg-type]
    callback._deadline, callback._has_advanced = 0.0, True
    assert [callback._agree(at_step(step)) for step in (3, 4, 5)] == [GO_ON, TIME_IS_UP, GO_ON]


def test_save_of_a_step_answers_the_request_of_the_next_one(group: None, tmp_path: Path) -> None:
    callback = Checkpoints(tmp_path / "last", tmp_path / "best", every_minutes=1e-9, keep=True)
    callback.setup(TWO, None, "fit")  # type: ignore[arg-type]
    trainer = at_step(1, save_checkpoint=lambda path: None)
    assert [callback._agree(trainer) for _ in range(2)] == [GO_ON, SAVE]
    callback._save_last(trainer)
    assert callback._agree(trainer) == GO_ON
    callback.stop_requested = lambda: True
    assert callback._agree(trainer, at_once=True) == STOP


@pytest.fixture(scope="module")
def collectives(script: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[list[str]]]:
    """For each rank of two, the collective operations of each batch."""
    folder = tmp_path_factory.mktemp("collectives")
    environment = script.environment | {"PYTHONPATH": str(Path(__file__).parents[1] / "launch")}
    ended = script.run(
        *("model=lenet", "data=synthetic", "data.train_size=128", "data.batch_size=16", "data.val_size=64"),
        *("data.eval_batch_size=8", "logger=none", "callbacks.pictures=null", "trainer=ddp_cpu", "test_on=none"),
        *("trainer.max_epochs=2", "trainer.log_every_n_steps=4", f"hydra.run.dir={folder}/run"),
        "+callbacks.collectives._target_=faults.Collectives",
        env=environment,
    )
    assert ended.returncode == 0, ended.stderr
    return {f"rank {rank}": json.loads((folder / f"run/rank{rank}.json").read_text()) for rank in (0, 1)}


@pytest.mark.parametrize("rank", ["rank 0", "rank 1"])
def test_step_has_one_collective_for_which_no_rank_waits(rank: str, collectives: dict[str, list[list[str]]]) -> None:
    """Epochs of 8 steps, of which the fourth and the last one are logged; DDP's own are not counted."""
    steps = collectives[rank]
    agreement = ["all_reduce, not waited for"]
    assert [steps[step] for step in (0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14)] == [agreement] * 12
    for step in (3, 11):
        assert steps[step] == ["barrier", "all_reduce", *agreement]  # the first two for the logged loss
    assert steps[7].count(agreement[0]) == 8 + 1  # batches of the validation, and the end of the epoch
    assert "broadcast" not in steps[7]
