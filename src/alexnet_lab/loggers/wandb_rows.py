"""The rows of an evaluation as a table in the W&B run that trained the network (`evaluate rows=FOLDER wandb=true`)."""

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import wandb

from alexnet_lab.errors import UserError
from alexnet_lab.loggers.wandb_artifacts import ANSWER_SECONDS, PREFIX, first_line
from alexnet_lab.loggers.wandb_service import end_service, service, without_reports
from alexnet_lab.rows import Rows

MOST_ROWS = wandb.Table.MAX_ARTIFACT_ROWS
"""W&B cuts longer tables."""
START_SECONDS, UPLOAD_SECONDS = 15.0, 300.0
KEY = "wandb=true"


class RecordedRun(NamedTuple):
    """A run on W&B's server."""

    entity: str
    project: str
    id: str
    state: str
    url: str


def recorded_run(reference: str, file: Path | None, config: Mapping[str, Any]) -> RecordedRun | None:
    """The W&B run that trained the checkpoint `reference`; None, with a line, if that or W&B itself is offline.

    `file`: the checkpoint's file, inside the run's folder. `config`: the run's, which names project and entity.

    Raises:
        UserError: the checkpoint has no W&B run, there is no login or no answer, or the run is still running.
    """
    mode = _set_up()
    path = _path(reference, file, config)
    if mode != "online" or path is None:
        why = f"W&B's mode is {mode}" if mode != "online" else "the run was recorded offline; upload it first"
        print(f"W&B: the table of rows will not be sent ({why})")
        return None
    try:
        with service():
            run = wandb.Api(timeout=ANSWER_SECONDS).run(path)
            found = RecordedRun(run.entity, run.project, run.id, run.state, run.url)
    except wandb.errors.UsageError as error:  # includes AuthenticationError
        raise UserError(f"{KEY}: not logged in to W&B; run `wandb login` first") from error
    except Exception as error:  # wandb raises many kinds
        raise UserError(f"{KEY}: the W&B run {path} cannot be read ({first_line(error)})") from error
    if found.state == "running":
        raise UserError(f"{KEY}: the W&B run {path} is still running; its table can be added when it has ended")
    return found


def _path(reference: str, file: Path | None, config: Mapping[str, Any]) -> str | None:
    """[ENTITY/]PROJECT/ID; None if the run is on this machine only."""
    if match := re.fullmatch(rf"{PREFIX}([^/:]+/[^/:]+)/model-([^/:]+):[^/:]+", reference):
        return "/".join(match.groups())
    folders = file.resolve().parents if file else ()
    folder = next((one / "wandb" for one in folders if (one / "wandb" / "run_id").is_file()), None)
    if folder is None:
        raise UserError(f"{KEY}: the checkpoint {reference} is not in the folder of a run that W&B recorded")
    offline = list(folder.glob("offline-run-*"))
    synced = any(any(one.glob("*.synced")) for one in offline)
    if offline and not synced and not any(folder.glob("run-*")):
        return None
    recorded = (config.get("logger") or {}).get("wandb") or {}
    places = (recorded.get("entity"), recorded.get("project"), (folder / "run_id").read_text().strip())
    return "/".join(one for one in places if one)


def send(rows: Rows, run: RecordedRun, key: str) -> None:
    """Add the table `key` to the run, which keeps its state, and print its address when the table is uploaded.

    Of more than `MOST_ROWS` images it has those with the highest loss.

    Raises:
        UserError: the server did not take it within `UPLOAD_SECONDS`.
    """
    table = rows.table()
    if len(table) > MOST_ROWS:
        print(f"W&B: the table has the {MOST_ROWS:,} images with the highest loss, of {len(table):,}")
        worst = np.argsort(-np.nan_to_num(rows.losses, nan=np.inf), kind="stable")[:MOST_ROWS]
        table = [table[row] for row in worst.tolist()]
    settings = wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,
        init_timeout=START_SECONDS,
        finish_timeout=UPLOAD_SECONDS,
        finish_timeout_raises=True,
        # The run keeps what its training recorded of the machine and the packages.
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )
    _set_up()
    exit_code = 0 if run.state == "finished" else 1
    try:
        with tempfile.TemporaryDirectory() as folder:
            place: dict[str, Any] = {"entity": run.entity, "project": run.project, "id": run.id, "dir": folder}
            resumed = wandb.init(**place, resume="must", mode="online", settings=settings)
            columns: list[str | int] = [*rows.columns]
            data = [[_as_utf8(cell) for cell in row] for row in table]
            resumed.log({key: wandb.Table(columns=columns, data=data)})
            resumed.finish(exit_code)
        print(f"written: {run.url}")
    except Exception as error:  # wandb raises many kinds
        raise UserError(f"{KEY}: W&B did not take the table of rows ({first_line(error)})") from error
    finally:
        end_service(exit_code)


def _as_utf8(cell: int | float | str) -> int | float | str:
    """A file name that is not UTF-8 cannot be sent; its other bytes become question marks."""
    return cell.encode("utf-8", "replace").decode() if isinstance(cell, str) else cell


def _set_up() -> str:
    """Let the library print errors only; returns its mode, `online` unless the user has set another."""
    without_reports()
    return str(wandb.setup(wandb.Settings(quiet=True, show_info=False)).settings.mode)
