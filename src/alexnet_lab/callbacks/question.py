"""A trial of a search asks at each epoch's end whether to continue, and waits for the answer of its sweep.

Question and answer are one file, which needs neither Optuna nor a database in the run. Only trials of a search with a
pruner ask. Imports nothing heavy.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

from alexnet_lab import files

VARIABLE = "ALEXNET_LAB_QUESTION"
"""Environment variable, set by the sweep: the file."""
CONTINUE, PRUNE = "continue", "prune"
LOOK_SECONDS = 0.02


class Question:
    """A question of a run and the answer of its sweep, in one file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def ask(self, epoch: int, waiting: Callable[[], bool]) -> bool:
        """In the run: whether it ends after `epoch`, from 0; false as soon as `waiting` is false."""
        files.write(self.path, str(epoch))
        while waiting():
            text = self._text()
            if text in (CONTINUE, PRUNE):
                return text == PRUNE
            time.sleep(LOOK_SECONDS)
        return False

    def asked(self) -> int | None:
        """In the sweep: the epoch that the run asks about; None where it waits for nothing."""
        text = self._text()
        return int(text) if text.isdecimal() else None

    def answer(self, prune: bool) -> None:
        """In the sweep: let the run continue, or end it."""
        files.write(self.path, PRUNE if prune else CONTINUE)

    def _text(self) -> str:
        try:
            return self.path.read_text()
        except FileNotFoundError:  # also for a moment, where a file system cannot rename over a file
            return ""


def question_of_sweep() -> Question | None:
    """What this run asks; None for all runs but the trials of a search with a pruner."""
    path = os.environ.get(VARIABLE)
    return Question(Path(path)) if path else None
