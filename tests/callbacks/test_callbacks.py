"""The callbacks without a run; tests/test_runs.py tests them in runs."""

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from alexnet_lab.callbacks.checkpoint_io import AtomicCheckpointIO
from alexnet_lab.callbacks.checkpoints import Checkpoints
from alexnet_lab.callbacks.finite_loss import FiniteLoss
from alexnet_lab.callbacks.stopwatch import Stopwatch
from alexnet_lab.data.spec import Batch
from alexnet_lab.errors import RunFailed

ON_CPU: Any = SimpleNamespace(device=torch.device("cpu"))
ON_GPU: Any = SimpleNamespace(device=torch.device("cuda"))
EMPTY = torch.empty(0)


def trainer_at(step: int, rate: float = 0.05, **facts: Any) -> Any:
    optimizer = SimpleNamespace(param_groups=[{"lr": rate}])
    return SimpleNamespace(**({"global_step": step, "optimizers": [optimizer], "log_every_n_steps": 10} | facts))


def see(callback: FiniteLoss, step: int, loss: float, module: Any = ON_CPU) -> None:
    callback.on_train_batch_start(trainer_at(step - 1))
    callback.on_train_batch_end(trainer_at(step, rate=0.01), module, {"loss": torch.tensor(loss)}, None, step - 1)


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), float("-inf")])
def test_nan_loss_ends_the_run_with_step_and_learning_rate(loss: float) -> None:
    callback = FiniteLoss()
    see(callback, 1, 2.3)
    with pytest.raises(RunFailed, match=rf"the loss became {loss} at step 2 with a learning rate of 0\.05"):
        see(callback, 2, loss)


@pytest.mark.parametrize("split", ["val", "test"])
def test_nan_loss_in_evaluation_ends_the_run(split: str) -> None:
    trainer = trainer_at(7, callback_metrics={f"{split}/loss": torch.tensor(float("nan"))})
    hook = {"val": FiniteLoss().on_validation_end, "test": FiniteLoss().on_test_end}[split]
    with pytest.raises(RunFailed, match=f"{split}/loss became nan after step 7"):
        hook(trainer, ON_CPU)


def test_accelerator_reports_the_first_bad_step_although_checked_later() -> None:
    callback = FiniteLoss()
    see(callback, 1, 2.3, ON_GPU)
    see(callback, 2, float("nan"), ON_GPU)
    see(callback, 3, float("inf"), ON_GPU)
    with pytest.raises(RunFailed, match="nan at step 2"):
        callback.on_save_checkpoint(trainer_at(3), ON_GPU, {})


@pytest.mark.parametrize(
    ("log_every", "accumulate", "checked"), [(10, 1, 10), (0, 1, 500), (1000, 1, 500), (10, 4, 10)]
)
def test_accelerator_checks_at_logged_steps_and_at_least_every_500_losses(
    log_every: int, accumulate: int, checked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    callback, checks = FiniteLoss(), 0

    def check() -> None:
        nonlocal checks
        checks += 1
        callback._pending.clear()

    monkeypatch.setattr(callback, "_check", check)
    for number in range(1, 1000 * accumulate + 1):
        trainer = trainer_at(number // accumulate, log_every_n_steps=log_every)
        callback.on_train_batch_end(trainer, ON_GPU, {"loss": torch.tensor(1.0)}, None, number - 1)
    assert checks == 1000 // checked


def test_failed_save_keeps_the_older_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, io = tmp_path / "checkpoints" / "last.ckpt", AtomicCheckpointIO({"config": {"seed": 1}})
    io.save_checkpoint({"global_step": 1, "weights": torch.arange(3)}, path)

    def half(content: Any, file: Any) -> None:
        file.write(b"half a checkpoint")
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(RunFailed, match=r"last\.ckpt cannot be written: no space left on device"):
        io.save_checkpoint({"global_step": 2}, path)
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]  # the unfinished file was removed
    found = torch.load(path, weights_only=True)
    assert (found["global_step"], found["config"]) == (1, {"seed": 1})
    assert torch.equal(found["weights"], torch.arange(3))


def checkpoints(folder: Path, keep: bool = True) -> Checkpoints:
    return Checkpoints(folder / "last.ckpt", folder / "best.ckpt", every_minutes=10.0, keep=keep)


def validated(callback: Checkpoints, epoch: int, top1: float, loss: float = 1.0) -> list[tuple[Path, bool]]:
    """The files saved at the end of a validation of two batches."""
    saved: list[tuple[Path, bool]] = []
    trainer: Any = SimpleNamespace(
        num_val_batches=[2],
        state=SimpleNamespace(fn="fit"),
        current_epoch=epoch,
        is_global_zero=True,
        global_step=1,
        callbacks=[],
        save_checkpoint=lambda path, weights_only: saved.append((path, weights_only)),
    )
    module: Any = SimpleNamespace(eval_metrics=SimpleNamespace(compute=lambda: {"top1": top1, "loss": loss}))
    callback.validated(trainer, module, None, None, batch_idx=0)
    assert saved == []
    callback.validated(trainer, module, None, None, batch_idx=1)
    return saved


def test_best_is_saved_at_the_first_highest_top1_without_optimizer_state(tmp_path: Path) -> None:
    callback = checkpoints(tmp_path)
    best = [(tmp_path / "best.ckpt", True)]
    saved = [validated(callback, epoch, top1) for epoch, top1 in enumerate((0.0, 0.5, 0.5, 0.25))]
    assert saved == [best, best, [], []]
    assert (callback.best_top1, callback.best_epoch) == (0.5, 1)


def test_weights_without_a_finite_loss_do_not_replace_the_best(tmp_path: Path) -> None:
    callback = checkpoints(tmp_path)
    validated(callback, 0, 0.5)
    assert validated(callback, 1, 0.75, loss=float("nan")) == []
    assert callback.best_epoch == 0


def test_continued_run_remembers_the_best_score(tmp_path: Path) -> None:
    first, continued = checkpoints(tmp_path), checkpoints(tmp_path)
    validated(first, 3, 0.5)
    continued.load_state_dict(first.state_dict())
    assert validated(continued, 4, 0.25) == []
    assert continued.best_epoch == 3


def starts(callback: Checkpoints) -> None:
    callback.on_fit_start(SimpleNamespace(is_global_zero=True), None)  # type: ignore[arg-type]


def test_best_of_a_retrained_epoch_is_renamed_until_that_epoch_is_saved_again(
    tmp_path: Path,
) -> None:
    best, aside = tmp_path / "best.ckpt", tmp_path / "best-epoch-8.ckpt"
    torch.save({"epoch": 7}, best)
    continued = checkpoints(tmp_path)
    continued.load_state_dict({"best_top1": 0.5, "best_epoch": 3})
    starts(continued)
    assert (best.exists(), aside.exists()) == (False, True)
    validated(continued, 6, 0.6)
    assert aside.exists()  # it belonged to another epoch
    validated(continued, 7, 0.7)
    assert not aside.exists()
    torch.save({"epoch": 7}, best)
    starts(continued)
    assert (best.exists(), aside.exists()) == (True, False)


def test_keep_false_writes_no_checkpoint_but_records_the_best_epoch(tmp_path: Path) -> None:
    callback = checkpoints(tmp_path, keep=False)
    assert validated(callback, 2, 0.5) == []
    assert callback.best_epoch == 2


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    now = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr("alexnet_lab.callbacks.stopwatch.time.time", lambda: now.seconds)
    return now


def batch(labels: Tensor = EMPTY, size: int = 32) -> Batch:
    return Batch(EMPTY, labels, EMPTY, global_size=size)


def test_images_per_second_count_global_batches_over_training_time(clock: SimpleNamespace) -> None:
    watch, trainer = Stopwatch(started=990.0), trainer_at(2, accumulate_grad_batches=2, is_last_batch=True)
    assert watch.images_per_second is None
    watch.on_train_epoch_start(trainer, ON_CPU)
    for number in range(4):  # two optimizer steps
        clock.seconds += 1
        watch.on_train_batch_end(trainer, ON_CPU, None, batch(), number)
    clock.seconds += 100  # validation
    watch.on_validation_end(trainer, ON_CPU)
    assert watch.images_per_second == 2 * 32 / 4
    assert watch.seconds == 114


def test_continued_run_includes_earlier_sessions(clock: SimpleNamespace) -> None:
    first = Stopwatch(started=1000.0)
    first.on_train_start(None, ON_CPU)  # type: ignore[arg-type]
    clock.seconds += 8
    first.on_train_batch_end(SimpleNamespace(accumulate_grad_batches=1), ON_CPU, None, batch(), 0)  # type: ignore[arg-type]
    state = first.state_dict()
    clock.seconds += 500
    second = Stopwatch(started=clock.seconds)
    second.load_state_dict(state)
    clock.seconds += 2
    assert second.seconds == 10
    assert second.images_per_second == 4


def test_images_per_second_excludes_the_first_three_steps_and_includes_the_end_of_the_queue(
    clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait() -> None:
        clock.seconds += waiting

    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "synchronize", wait)
    watch, trainer = Stopwatch(started=1000.0), trainer_at(1, accumulate_grad_batches=1, is_last_batch=True)
    for epoch in range(2):
        watch.on_train_epoch_start(trainer, ON_GPU)
        for number in range(5):
            waiting = 20.0  # the third step waits for the compilation of the network
            clock.seconds += 1
            watch.on_train_batch_end(trainer, ON_GPU, None, batch(), number)
        waiting = 4.0
        watch.on_validation_start(trainer, ON_GPU)
        clock.seconds += 100
        watch.on_validation_end(trainer, ON_GPU)
        clock.seconds += 100  # pictures
        watch.on_train_epoch_end(trainer, ON_GPU)
        assert watch.images_per_second == [2 * 32 / 6, 7 * 32 / 15][epoch]


def test_times_of_validations_are_kept_over_all_sessions(clock: SimpleNamespace) -> None:
    first, second = Stopwatch(started=1000.0), Stopwatch(started=1600.0)
    for step, seconds in ((5, 10), (10, 20)):
        clock.seconds = 1000.0 + seconds
        first.on_validation_end(trainer_at(1, global_step=step, is_last_batch=True), ON_CPU)
    second.load_state_dict(first.state_dict())
    clock.seconds = 1607.0
    second.on_validation_end(trainer_at(1, global_step=15, is_last_batch=True), ON_CPU)
    assert second.validated_at == {5: 10, 10: 20, 15: 27}
