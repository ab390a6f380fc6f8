"""Exit statuses, exceptions that are not defects, and text that is safe to print."""

from bdb import BdbQuit
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

FINISHED, FAILED, USER_ERROR, INTERRUPTED = 0, 1, 2, 3
"""Exit statuses of every command."""


class UserError(ValueError):
    """A wrong option, value, path or combination: the message says what is wrong and what would be right.

    The entry wrapper prints the message without a traceback and exits with status 2. Any other exception is a defect.
    """


class WrongOption(UserError):
    """`key` of a configuration's `group` does not exist or has a wrong value; `options` are the keys that exist."""

    def __init__(self, message: str, group: str, key: str, options: Sequence[str]) -> None:
        super().__init__(message)
        self.group, self.key, self.options = group, key, options


class RunFailed(RuntimeError):
    """The run cannot continue although the program is correct, for example because the loss is infinite."""


def cannot_be_written(path: object, error: OSError) -> RunFailed:
    """The exception for a `path` that the system cannot write, for example on a full disk."""
    return RunFailed(f"{path} cannot be written: {error.strerror or error}")


class RunInterrupted(BaseException):
    """The run stopped early, saved its state and can be continued; the message is the reason.

    `signal` (Ctrl-C, SIGTERM) or `max_time` (`trainer.max_time` has passed since the start). Like
    KeyboardInterrupt it is no `Exception`, since libraries may catch those.
    """


STOPPED = (RunInterrupted, BdbQuit)
"""What ends a run as interrupted; `q` at the prompt of Python's debugger raises BdbQuit, and nothing is saved."""
QUIT = "debugger"
"""The reason of a run that ended so."""


class RunPruned(RunInterrupted):
    """The search that the run belongs to has ended it early, and it saved its state; the message says after what."""


@contextmanager
def fitting_libraries() -> Iterator[None]:
    """Report an import of a torchvision that was not built for the installed torch as a user's error."""
    try:
        yield
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
        from importlib.metadata import version  # slow to import

        pair = " and ".join(f"{name} {version(name)}" for name in ("torch", "torchvision"))
        remedy = "install both together, from one index, for example by `pip install --upgrade torch torchvision`"
        raise UserError(f"{pair} do not work together ({error}): {remedy}") from error


def printable(text: str) -> str:
    """The text with invalid and control characters escaped; names of files may contain both."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def printable_lines(text: str) -> str:
    """As `printable`, but with its lines."""
    return "\n".join(map(printable, text.split("\n")))


def names_of(names: Collection[str], shown: int = 5) -> str:
    """The first few names, those with a comma in quotation marks, and the number of others."""
    return listed([f'"{name}"' if "," in name else name for name in names], shown)


def listed(texts: Sequence[str], shown: int = 5) -> str:
    """The first few texts, and the number of others."""
    text = printable(", ".join(texts[:shown]))
    return f"{text} and {len(texts) - shown:,} more" if len(texts) > shown else text
