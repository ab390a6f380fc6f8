"""Which part of the configuration an exception of a library comes from.

A callback, a logger or a profiler of a library may not fit the run that the configuration puts it into. That is the
user's error, or what ended the run, and is reported in one line. The traceback is kept of all other exceptions, and of
those of the user's own classes.
"""

import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from alexnet_lab.errors import RunFailed, RunInterrupted, UserError

OURS = "alexnet_lab."
LIGHTNING = "lightning."
LIBRARIES = (LIGHTNING, "torch.", "mlflow.", "wandb.", "tensorboard")
MOST_LINES = 3


@contextmanager
def blaming(parts: Mapping[str, object], begun: Callable[[], bool]) -> Iterator[None]:
    """Raise what `blamed` returns in place of an exception."""
    try:
        yield
    except Exception as error:
        reported = blamed(error, parts, begun())
        if reported is error:
            raise
        raise reported from error


def blamed(error: BaseException, parts: Mapping[str, object], begun: bool) -> BaseException:
    """What to raise in place of `error`, which may be `error` itself.

    `parts` are the objects that the configuration names, by their keys. Before the training has begun, what lightning
    refuses is a `UserError` too: settings of the trainer that do not fit the data, as a fraction of less than a batch.
    """
    if isinstance(error, (UserError, RunFailed, RunInterrupted)):
        return error
    reason = "\n".join(str(error).splitlines()[:MOST_LINES]) or type(error).__name__
    if name := _part_that_raised(error, parts):
        line = f"{name} ({type(parts[name]).__name__}): {reason}"
        return RunFailed(line) if begun else UserError(line)
    if not begun and isinstance(error, MemoryError):
        return UserError(f"out of memory: {reason}")
    if not begun and _modules(error)[-1].startswith(LIGHTNING):
        return UserError(f"trainer: {reason}")
    return error


def _part_that_raised(error: BaseException, parts: Mapping[str, object]) -> str:
    """The part of a library in whose methods the exception was raised, unless it had called this project's code."""
    names = {id(part): name for name, part in parts.items() if type(part).__module__.startswith(LIBRARIES)}
    found = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if name := names.get(id(frame.f_locals.get("self"))):
            found = name
        elif frame.f_globals.get("__name__", "").startswith(OURS):
            found = ""
    return found


def _modules(error: BaseException) -> list[str]:
    return [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
