"""Weights & Biases as a logger that never prompts, never waits long and never stops training.

With a login and a reachable server, the run is online. Otherwise it is recorded offline in the run's folder, and
`wandb sync` uploads it later. A continued run continues the same W&B run.
"""

import logging
import shlex
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import wandb
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from alexnet_lab import files, revision
from alexnet_lab.command_line import from_here
from alexnet_lab.errors import UserError
from alexnet_lab.loggers.wandb_artifacts import first_line, upload
from alexnet_lab.loggers.wandb_service import end_service, without_reports
from alexnet_lab.metric_names import FIGURES

log = logging.getLogger(__name__)

Mode = Literal["auto", "online", "offline"]
START_SECONDS = 15.0  # for the server to accept the run; wandb needs about 5 s more to give up
FINISH_SECONDS = 30.0  # for the rest of the upload after the end of the run


class WandbRun(WandbLogger):
    """Lightning's W&B logger with limited time for start and end. It prints only problems, one line each.

    The W&B run begins at the first use, on rank 0 only, and lasts through `fit` and `test` until `finish`.
    """

    def __init__(self, folder: Path, mode: Mode, keep_checkpoint: bool = False, **init: Any) -> None:
        super().__init__(save_dir=folder, **init)
        del self._wandb_init["anonymous"]  # wandb warns about it
        self._folder = folder
        self._mode = mode
        self._keep_checkpoint = keep_checkpoint
        self._broken = False
        self._incomplete: Path | None = None  # the folder of an online run whose upload is incomplete
        self._finished = False

    @property
    @rank_zero_experiment
    def experiment(self) -> wandb.Run:
        """The W&B run, begun at the first call.

        Raises `UserError` for names that W&B rejects, and with `mode=online` if there is no login or no answer.
        """
        if self._experiment is None:
            run = _begin(self._folder, self._mode, self._wandb_init)
            _define_metrics(run)
            self._experiment = run
        return cast(wandb.Run, self._experiment)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._try(super().log_metrics, metrics, step)

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """Put a nested dictionary into the W&B run's config."""
        self._try(super().log_hyperparams, params)

    @rank_zero_only
    def log_image(self, key: str, images: list[Any], step: int | None = None, **kwargs: Any) -> None:
        """Log pictures, or the paths of their files, which are copied."""
        self._try(super().log_image, key, images, step, **kwargs)

    @rank_zero_only
    def finish(
        self,
        exit_code: int = 0,
        best: Mapping[str, float] | None = None,
        summary: Mapping[str, Any] | None = None,
        checkpoint: Path | None = None,
        is_kept: bool = True,
    ) -> None:
        """End the W&B run within `FINISH_SECONDS`, then its process; log the command that uploads the rest.

        `best`: the best values of the whole run by metric; W&B itself has only those since the last continuation.
        `summary`: further values for W&B's summary. `checkpoint`: uploaded first if `log_model` is set. `is_kept`:
        whether the folder stays; that of a start that failed before training does not, so there is nothing to upload.
        """
        if self._experiment is None or self._finished:
            return
        self._finished = True
        run = self._experiment
        try:
            for name in set(FIGURES).intersection(best or {}):
                run.summary[name] = {_better(name): (best or {})[name]}
            run.summary.update({name: value for name, value in (summary or {}).items() if value is not None})
            if checkpoint and self._keep_checkpoint and not (run.offline or run.disabled):
                upload(cast(wandb.Run, run), checkpoint)
            run.finish(exit_code)
        except TimeoutError:
            self._incomplete = Path(run.dir).parent
            log.warning("W&B: the upload did not finish in %g s; the run is kept in %s", FINISH_SECONDS, self._folder)
        except Exception as error:
            self._incomplete = None if run.offline else Path(run.dir).parent
            log.warning("W&B: the end of the run was not recorded (%s)", first_line(error))
        finally:
            end_service(exit_code)
        if is_kept and self.sync_command:
            log.info("W&B: upload the run with `%s`", self.sync_command)

    @property
    def sync_command(self) -> str | None:
        """The command that uploads data that is only on this machine; None if there is none."""
        runs = [path for path in sorted(self._folder.glob("wandb/offline-run-*")) if not any(path.glob("*.synced"))]
        options = []
        if self._incomplete:
            runs.append(self._incomplete)
            options.append("--include-online")  # wandb assumes that the folder of an online run is uploaded
        if not runs:
            return None
        return shlex.join(["wandb", "sync", *options, *map(from_here, runs)])

    def _try(self, log_something: Callable[..., Any], *arguments: Any, **kwargs: Any) -> None:
        """Stop logging at the first failure: wandb's own process may die, and training does not need it."""
        _ = self.experiment  # outside of the try block: failing to begin is an error for the user
        if self._broken or self._finished:
            return
        try:
            log_something(*arguments, **kwargs)
        except Exception as error:
            self._broken = True
            log.warning("W&B: logging stopped, training continues (%s)", first_line(error))


def wandb_logger(
    folder: str,
    project: str = "alexnet-lab",
    entity: str | None = None,
    mode: Mode = "auto",
    name: str | None = None,
    group: str | None = None,
    job_type: str | None = None,
    tags: Sequence[str | None] = (),
    notes: str | None = None,
    log_model: bool = False,
) -> WandbRun:
    """The W&B logger of the run in `folder`; nothing is started yet.

    `mode`: `auto` follows WANDB_MODE and `wandb offline`, then is online if there is a login and a reachable server,
    otherwise offline. `online` requires both; `offline` needs neither. `entity` None is the account's default, `name`
    None the name of the folder. Tags that are None are ignored. `log_model` uploads the best checkpoint at the end of
    an online run.
    """
    return WandbRun(
        Path(folder),
        mode,
        keep_checkpoint=log_model,
        project=project,
        entity=entity,
        name=name or Path(folder).name,
        group=group,
        job_type=job_type,
        tags=[tag for tag in dict.fromkeys(tags) if tag],
        notes=notes,
    )


def _begin(folder: Path, mode: Mode, init: Mapping[str, Any]) -> wandb.Run:
    folder.mkdir(parents=True, exist_ok=True)
    try:
        chosen = _choose_mode(mode)
        before = set(folder.glob("wandb/run-*"))
        try:
            return _init(folder, chosen, init)
        except wandb.errors.CommError as error:
            if mode == "online":
                raise UserError(f"W&B: {first_line(error)}; logger.wandb.mode=auto would record offline") from error
            log.warning("W&B: the server did not accept the run (%s); recording offline", first_line(error))
        for empty in set(folder.glob("wandb/run-*")) - before:
            shutil.rmtree(empty, ignore_errors=True)
        return _init(folder, "offline", init)
    except wandb.errors.UsageError as error:
        raise UserError(f"W&B: {first_line(error)}") from error


def _choose_mode(mode: Mode) -> Literal["online", "offline", "disabled"]:
    without_reports()
    surroundings = wandb.setup(wandb.Settings(quiet=True, show_info=False)).settings.mode
    if mode == "offline" or (mode == "auto" and surroundings in ("offline", "dryrun")):
        return "offline"
    if mode == "auto" and surroundings == "disabled":
        return "disabled"
    try:
        if wandb.login(prompt=False, verify=False):
            return "online"
        reason = "not logged in (`wandb login`)"
    except wandb.errors.AuthenticationError as error:
        reason = first_line(error)
    if mode == "online":
        raise UserError(f"W&B: {reason}; logger.wandb.mode=auto would record offline")
    log.info("W&B: %s; recording offline", reason)
    return "offline"


def _init(folder: Path, mode: Literal["online", "offline", "disabled"], init: Mapping[str, Any]) -> wandb.Run:
    # By itself, W&B would record a repository of the user.
    repository = revision.repository()
    git: dict[str, Any] = {"git_root": str(repository)} if repository else {"disable_git": True}
    settings = wandb.Settings(
        **git,
        silent=True,
        console="off",
        init_timeout=START_SECONDS,
        finish_timeout=FINISH_SECONDS,
        finish_timeout_raises=True,
        x_transaction_log_flush_interval=1.0,  # seconds of metrics that a kill can lose; wandb's default is 15
    )
    id_file = folder / "wandb" / "run_id"
    run_id = id_file.read_text().strip() if id_file.exists() else uuid.uuid4().hex[:8]
    run = wandb.init(**{**init, "id": run_id}, mode=mode, reinit="finish_previous", settings=settings)
    if mode == "online":
        log.info("W&B: %s", run.url)
    if mode != "disabled":
        files.write(id_file, f"{run.id}\n")  # a sweep's agent may have set another id
    return run


def _define_metrics(run: wandb.Run) -> None:
    """Plot metrics of an epoch over epochs, all others over optimizer steps; summaries keep the best value."""
    run.define_metric("epoch")
    run.define_metric("trainer/global_step")
    run.define_metric("*", step_metric="trainer/global_step")
    for name in FIGURES:
        run.define_metric(name, step_metric="epoch", summary=_better(name))


def _better(name: str) -> Literal["min", "max"]:
    return "min" if name.endswith("/loss") else "max"
