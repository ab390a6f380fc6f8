"""W&B's own process: every use of the library starts it; it is ended within limited time."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import wandb

END_SECONDS = 20.0
"""Time limit for the process to end."""


def without_reports() -> None:
    """Turn off W&B's error reports: without its server, they delay the end by 10 s and more."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")


@contextmanager
def service() -> Iterator[None]:
    """A context for requests to the server. W&B's process is ended afterwards, unless it is recording a run."""
    without_reports()
    try:
        yield
    finally:
        if wandb.run is None:
            end_service()


def end_service(exit_code: int = 0) -> None:
    """End W&B's process and its runs, with `exit_code`, within `END_SECONDS`.

    `wandb.teardown`, which wandb also calls at program exit, waits indefinitely if the process hangs, for example when
    the server does not answer. A process that is still running then ends after this program.
    """

    def end() -> None:
        with suppress(Exception, SystemExit):  # if the process has died, wandb would exit with its status
            wandb.teardown(exit_code)

    thread = threading.Thread(target=end, name="end of W&B", daemon=True)
    thread.start()
    thread.join(END_SECONDS)
