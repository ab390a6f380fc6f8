"""The other loggers, and what all loggers receive at the start and the end of a run."""

import logging
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger

from alexnet_lab import revision
from alexnet_lab.command_line import install
from alexnet_lab.errors import UserError

COMMIT = "mlflow.source.git.commit"
OF_REPOSITORY = ("mlflow.source.git.branch", "mlflow.source.git.repoURL")
"""Further tags that MLflow sets by itself."""

log = logging.getLogger(__name__)


@runtime_checkable
class Finishable(Protocol):
    """A logger whose run lasts until `finish`, such as `alexnet_lab.loggers.wandb.WandbRun`."""

    def finish(
        self,
        exit_code: int = 0,
        best: Mapping[str, float] | None = None,
        summary: Mapping[str, Any] | None = None,
        checkpoint: Path | None = None,
        is_kept: bool = True,
    ) -> None: ...


class NoLogger(Logger):
    """Drops everything; for ranks other than 0, where callbacks need a logger, too."""

    name = version = ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Nothing."""


def tensorboard_logger(folder: str) -> TensorBoardLogger:
    """TensorBoard event files in `folder/tensorboard`; a continued run appends to them."""
    _require("tensorboard", "tensorboard")
    return TensorBoardLogger(save_dir=folder, name="tensorboard", version="", default_hp_metric=False)


def mlflow_logger(
    folder: str, experiment: str = "alexnet-lab", tracking_uri: str = "sqlite:///logs/mlflow.db"
) -> MLFlowLogger:
    """An MLflow run named after `folder`, in a database shared by all runs or on a server (`http://...`).

    MLflow's parameters cannot be changed, so a continued run is another MLflow run of the same name.
    """
    _require("mlflow", "mlflow")
    if tracking_uri.startswith("sqlite:"):
        _require("sqlalchemy", "mlflow")
        _require("alembic", "mlflow")
    # By itself, MLflow would record a repository of the user.
    commit = (revision.revision() or {}).get("commit")
    tags = {COMMIT: commit} if commit else dict.fromkeys((COMMIT, *OF_REPOSITORY), "")
    logging.getLogger("alembic").setLevel(logging.WARNING)  # hides a line per migration of a new database
    try:
        if tracking_uri.startswith("sqlite:"):
            Path(tracking_uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        return MLFlowLogger(experiment, run_name=Path(folder).name, tracking_uri=tracking_uri, tags=tags)
    except Exception as error:  # MLflow's own exception class is not imported here
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"logger.mlflow.tracking_uri={tracking_uri}: {reason}") from error


def log_config(loggers: Iterable[Logger], config: Mapping[str, Any]) -> None:
    """Log the resolved, nested configuration and further facts (revision, parameters) to every logger."""
    for logger in loggers:
        logger.log_hyperparams(dict(config))


def finish_loggers(
    loggers: Iterable[Logger],
    succeeded: bool,
    best: Mapping[str, float] | None = None,
    summary: Mapping[str, Any] | None = None,
    checkpoint: Path | None = None,
    is_kept: bool = True,
) -> None:
    """End every logger's run as finished or failed, see `WandbRun.finish`. Nothing can be logged afterwards.

    A logger that fails, for example without its server, causes a warning and does not change the run's status.
    """
    for logger in loggers:
        try:
            if isinstance(logger, Finishable):
                code = 0 if succeeded else 1
                logger.finish(exit_code=code, best=best, summary=summary, checkpoint=checkpoint, is_kept=is_kept)
            else:
                logger.finalize("success" if succeeded else "failed")
        except Exception as error:
            log.warning("%s: the end of the run was not recorded (%s)", type(logger).__name__, error, exc_info=True)


def _require(package: str, extra: str) -> None:
    if find_spec(package) is None:
        raise UserError(f"logger={extra} needs the package {package}: {install(extra)}")
