"""The rule for names of runs.

Imports nothing heavy.
"""

import os
import re
from typing import Any

from alexnet_lab.errors import UserError

LONGEST_RUN = 200
"""Largest length in bytes; file systems allow 255, and W&B appends to it."""


def check_name(run: Any) -> None:
    """Raises UserError if `run` is not a valid name."""
    if not isinstance(run, str) or not re.fullmatch(r"[\w.+=,-]+", run) or run.startswith("."):
        shown = "null" if run is None else run
        raise UserError(f"run={shown}: a run's name consists of letters, digits and . _ - + = ,")
    if len(os.fsencode(run)) > LONGEST_RUN:
        raise UserError(f"run={run[:40]}...: a run's name has at most {LONGEST_RUN} bytes")
