"""Finds the part of the configuration that caused an exception of a library.

A callback, logger or profiler of a library may not fit the configured run. Before training, that is a user's error;
later, it ends the run. Both are reported in one line. All other exceptions, including those of the user's own classes,
keep their traceback.
"""

import traceback
from collections.abc import Callable, Mapping

from alexnet_lab.config.memory import explained
from alexnet_lab.errors import STOPPED, RunFailed, UserError

OURS = "alexnet_lab."
LIGHTNING = "lightning."
LIBRARIES = (LIGHTNING, "torch.", "mlflow.", "wandb.", "tensorboard")
MOST_LINES = 3


def blamed(
    error: BaseException,
    parts: Mapping[str, object],
    training_has_begun: bool,
    remedies: Callable[[], str] = lambda: "a smaller data.batch_size",
) -> BaseException:
    """The exception to raise in place of `error`, possibly `error` itself.

    `parts` are the objects built from the configuration, by key; `remedies` are asked for if memory ran out. Before
    training has begun, errors raised by lightning are a `UserError`, too: trainer settings that do not fit the data,
    such as a fraction smaller than one batch.
    """
    if isinstance(error, (UserError, RunFailed, *STOPPED)):
        return error
    if not training_has_begun and isinstance(error, MemoryError):  # the host cannot hold the data
        return UserError(f"out of memory: {error}")
    explanation = explained(error, RunFailed if training_has_begun else UserError, remedies)
    if explanation is not error:
        return explanation
    reason = "\n".join(str(error).splitlines()[:MOST_LINES]) or type(error).__name__
    if name := _part_that_raised(error, parts):
        line = f"{name} ({type(parts[name]).__name__}): {reason}"
        return RunFailed(line) if training_has_begun else UserError(line)
    if not training_has_begun and _modules(error)[-1].startswith(LIGHTNING):
        return UserError(f"trainer: {reason}")
    return error


def _part_that_raised(error: BaseException, parts: Mapping[str, object]) -> str:
    """The library's part in whose methods the exception was raised, unless it had called code of this project."""
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
