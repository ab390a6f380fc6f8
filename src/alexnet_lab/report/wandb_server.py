"""Reads the runs of a W&B project through W&B's public API (`wandb.Api`: `runs`, and a run's `config`, `summary`,
`state`, `scan_history`)."""

from collections.abc import Mapping
from typing import Any

from alexnet_lab.errors import UserError
from alexnet_lab.runs.run import Run
from alexnet_lab.runs.wandb_records import run_of_wandb

SECONDS = 30  # for one answer of the server


def read_project(path: str, filters: Mapping[str, Any] | None = None) -> list[Run]:
    """The runs of `path` (ENTITY/PROJECT, or PROJECT of the default entity) that match W&B's `filters`.

    Raises:
        UserError: not logged in, no answer, no such project, or no matching run.
    """
    import wandb

    from alexnet_lab.loggers.wandb_service import service

    try:
        with service():
            # Iterating sends the requests: one per page, and one per run for its history.
            found = [_read(run) for run in wandb.Api(timeout=SECONDS).runs(path, filters=dict(filters or {}))]
    except refusals() as error:
        raise UserError(f"wandb={path}: {reason(error)}") from error
    if not found:
        matching = f" that matches {dict(filters)}" if filters else ""
        raise UserError(f"wandb={path}: the project has no run{matching}")
    return found


def _read(run: Any) -> Run:
    return run_of_wandb(
        name=f"{run.name} ({run.id})",
        source=str(run.url),
        state=run.state,
        config=dict(run.config),
        summary=dict(run.summary),
        history=run.scan_history(),
    )


def refusals() -> tuple[type[Exception], ...]:
    """What W&B's library raises where the server does not do as asked."""
    import requests
    import wandb

    return wandb.errors.Error, ValueError, requests.exceptions.RequestException, OSError


def reason(error: Exception) -> str:
    """One line for the user: why the server did not do as asked, and what helps."""
    message = (str(error).splitlines() or [type(error).__name__])[0]
    if any(word in message.lower() for word in ("api key", "api_key", "logged in", "login", "401", "unauthorized")):
        return f"not logged in; run `wandb login` first ({message})"
    if any(word in message.lower() for word in ("404", "not find", "not found")):
        return f"there is no such project, or this account has no access to it ({message})"
    if any(word in message.lower() for word in ("403", "permission", "forbidden")):
        return f"this account may not do that in the project ({message})"
    return f"W&B does not answer ({message})"
