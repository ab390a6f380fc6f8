"""What the name of a run is made of.

Imports nothing heavy.
"""

import os
import re
from typing import Any

from alexnet_lab.errors import UserError

LONGEST_RUN = 200
"""Bytes; file systems allow 255, and W&B adds to it."""


def check_name(run: Any) -> None:
    """Raises UserError: `run` is not a name of a run."""
    if not isinstance(run, str) or not re.fullmatch(r"[\w.+=,-]+", run) or run.startswith("."):
        shown = "null" if run is None else run
        raise UserError(f"run={shown}: a run's name is made of letters, digits and any of . _ - + = ,")
    if len(os.fsencode(run)) > LONGEST_RUN:
        raise UserError(f"run={run[:40]}...: a run's name has at most {LONGEST_RUN} bytes")
