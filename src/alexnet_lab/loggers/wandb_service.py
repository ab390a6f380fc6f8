"""W&B's own process, which every use of its library starts, and from which a command parts in bounded time."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import wandb

END_SECONDS = 20.0
"""For the process to end, once it is told to."""


def without_reports() -> None:
    """Have no reports of W&B's own errors sent: with the server away they hold up the end by 10 s and more."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")


@contextmanager
def service() -> Iterator[None]:
    """Around questions to a server; their process is ended, unless a run is recorded by it."""
    without_reports()
    try:
        yield
    finally:
        if wandb.run is None:
            end_service()


def end_service(exit_code: int = 0) -> None:
    """End the process and the runs that it records, with `exit_code`, within `END_SECONDS`.

    `wandb.teardown` alone, which wandb also calls when the program ends, waits without end for a process that hangs,
    as it may do when a server has not answered. What is left behind ends after the program.
    """

    def end() -> None:
        with suppress(Exception, SystemExit):  # it has died; wandb would end the program with its status
            wandb.teardown(exit_code)

    thread = threading.Thread(target=end, name="end of W&B", daemon=True)
    thread.start()
    thread.join(END_SECONDS)
