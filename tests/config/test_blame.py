"""A part of a library that does not fit the run is refused before training, or ends the run, with one line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
from lightning.pytorch import callbacks as of_lightning

from alexnet_lab.config.blame import blamed
from alexnet_lab.errors import FINISHED, USER_ERROR, RunFailed, UserError
from alexnet_lab.launch import ending, rank, starting
from alexnet_lab.launch.stopping import StopRequests

Settings = Callable[..., dict[str, Any]]
SIZES = ("data.train_size=8", "data.val_size=4", "data.test_size=4", "data.batch_size=4", "data.eval_batch_size=4")
SMALL = ("model=lenet", "data=synthetic", "logger=none", "trainer=cpu", "callbacks.pictures=null", *SIZES)
SHORT = (*SMALL, "trainer.max_epochs=1")
X = "+callbacks.x"
NEEDED = {
    "EarlyStopping": [f"{X}.monitor=val/top1"],
    "GradientAccumulationScheduler": [f"{X}.scheduling={{1:2}}"],
    "ModelPruning": [f"{X}.pruning_fn=l1_unstructured"],
    "OnExceptionCheckpoint": [f"{X}.dirpath=${{folder}}"],
    "StochasticWeightAveraging": [f"{X}.swa_lrs=0.1"],
    "ThroughputMonitor": [f"{X}.batch_size_fn={{_target_:builtins.len,_partial_:true}}"],
}
"""Required arguments of lightning's callbacks."""
REFUSED = {
    "BackboneFinetuning": "has no attribute `backbone`",
    "BaseFinetuning": "callbacks.x (BaseFinetuning): NotImplementedError",
    "BatchSizeFinder": "sweep over it",
    "LearningRateFinder": "tune=lr runs a range test",
    "GradientAccumulationScheduler": "a run has one global batch",
    "ModelPruning": "its checkpoints do not fit the network",
    "StochasticWeightAveraging": "use callbacks=ema",
}
MAY_BE_REFUSED = {"DeviceStatsMonitor": "psutil"}
"""Callbacks that are refused if a package is missing."""


@pytest.mark.usefixtures("as_in_a_rank")
@pytest.mark.parametrize("name", of_lightning.__all__)
def test_every_lightning_callback_works_or_is_refused_in_one_line(
    name: str,
    settings: Settings,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rank, "_log_to", lambda path, speak: None)
    found = settings(*SHORT, f"{X}._target_=lightning.pytorch.callbacks.{name}", *NEEDED.get(name, []))
    starting.prepare(tmp_path, found, continues=False)
    with StopRequests() as stop:
        status = ending.conclude(tmp_path, rank.run_rank(tmp_path, found, None, stop))
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith(("error: ", "failed", "Traceb"))]
    if status == FINISHED:
        assert name not in REFUSED
        assert lines == []
    else:
        assert status == USER_ERROR
        (line,) = lines
        assert {**REFUSED, **MAY_BE_REFUSED}[name] in line


OPTIMIZER = "optimizer._target_=torch.optim.Adam"


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["trainer.limit_train_batches=0.001"], "trainer: You requested to check 0.001 of the `train_dataloader`"),
        (["trainer.limit_val_batches=0.001"], "trainer: You requested to check 0.001 of the `val_dataloader`"),
        (["trainer.limit_test_batches=0.001"], "trainer.limit_test_batches=0.001 is less than one batch; at least 1"),
        (["trainer.val_check_interval=100"], "trainer:  `val_check_interval` (100) must be less than or equal to"),
        (
            ["+optimizer.differentiable=true"],
            "optimizer: a leaf Variable that requires grad is being used in an",
        ),
        (
            [OPTIMIZER, "~optimizer.momentum", "~optimizer.nesterov", "+optimizer.capturable=true"],
            "optimizer: If capturable=True, params and state_steps must be on supported devices",
        ),
        (["data.train_size=1000000000000"], "out of memory: Unable to allocate 7.28 TiB"),
        (
            ["trainer.strategy=ddp_spawn"],
            "trainer.strategy: 'ddp_spawn' does not fit: choose auto, ddp, ",
        ),
        (["trainer.profiler=xla"], "trainer.profiler: 'xla' does not fit: choose simple, advanced or pytorch"),
        (
            ["trainer.profiler={_target_:lightning.pytorch.profilers.SimpleProfiler,dirpath:/dev/null/x,filename:x}"],
            "trainer.profiler.dirpath=/dev/null/x cannot be created: Not a directory",
        ),
        (
            [f"{X}._target_=lightning.pytorch.callbacks.EarlyStopping", f"{X}.monitor=val_loss"],
            "callbacks.x.monitor=val_loss: there is no such metric; choose from: train/loss, train/top1, train/top5, ",
        ),
        (
            [
                f"{X}._target_=lightning.pytorch.callbacks.ModelCheckpoint",
                f"{X}.monitor=val/top1",
                "trainer.limit_val_batches=0",
            ],
            "callbacks.x.monitor=val/top1: there is no such metric; choose from: train/loss, train/top1, train/top5\n",
        ),
        (
            [f"{X}._target_=lightning.pytorch.callbacks.ModelCheckpoint", f"{X}.dirpath=/dev/null/x"],
            "callbacks.x.dirpath=/dev/null/x cannot be created: Not a directory",
        ),
        (
            ["+logger.x._target_=lightning.pytorch.loggers.CSVLogger", "+logger.x.save_dir=/dev/null/x"],
            "logger.x (CSVLogger): [Errno 20] Not a directory: '/dev/null/x'",
        ),
        (
            ["logger=mlflow", "logger.mlflow.tracking_uri=sqlite:////dev/null/x/y.db"],
            "logger.mlflow.tracking_uri=sqlite:////dev/null/x/y.db: [Errno 20] Not a directory",
        ),
    ],
)
def test_setting_that_would_fail_later_is_refused_before_training(
    overrides: list[str], line: str, settings: Settings, refusal: Callable[..., str]
) -> None:
    message = refusal(settings(*SHORT, *overrides))
    errors = message[message.index("error: ") :]
    assert errors.startswith(f"error: {line}")
    assert len(errors.splitlines()) <= 2


class Own(pl.Callback):
    """A user's callback."""

    monitor = "val/f1"

    def fail(self) -> None:
        raise AttributeError("a mistake of the user's")


def raised(by: Callable[[], Any]) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - of any kind
        by()
    return caught.value


def of_a_library() -> tuple[Exception, dict[str, object]]:
    stopping = of_lightning.EarlyStopping("val/top1")
    return raised(lambda: stopping._run_early_stopping_check(None)), {"callbacks.x": stopping}  # type: ignore[arg-type]


def test_failing_library_callback_is_reported_with_its_key_in_one_line() -> None:
    error, parts = of_a_library()
    before, after = blamed(error, parts, training_has_begun=False), blamed(error, parts, training_has_begun=True)
    assert (type(before), type(after)) == (UserError, RunFailed)
    assert str(before) == str(after) == f"callbacks.x (EarlyStopping): {error}"


def test_exception_of_a_users_class_keeps_its_traceback() -> None:
    own = Own()
    error = raised(own.fail)
    assert blamed(error, {"callbacks.x": own}, training_has_begun=False) is error
    assert blamed(error, {"callbacks.x": own}, training_has_begun=True) is error


def test_exception_of_our_code_called_by_a_library_keeps_its_traceback() -> None:
    from alexnet_lab.models.table import layer_table  # any function of this project

    stopping = of_lightning.LambdaCallback(setup=lambda *_: layer_table(None, 1, 1))  # type: ignore[arg-type]
    error = raised(lambda: stopping.setup(None, None, None))  # type: ignore[arg-type, misc]
    assert blamed(error, {"callbacks.x": stopping}, training_has_begun=True) is error


@pytest.mark.parametrize("error", [UserError("x"), RunFailed("x")])
def test_user_error_is_unchanged(error: Exception) -> None:
    assert blamed(error, {}, training_has_begun=True) is error
