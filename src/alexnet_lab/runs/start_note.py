"""A note in a run's folder until training begins: until then a start can be undone, see `alexnet_lab.launch.starting`.

Imports nothing heavy.
"""

from pathlib import Path

NOTE = ".starting"
CONFIG_BEFORE, RESULT_BEFORE = ".config.before", ".result.before"
"""The configuration and result of an earlier start, until training begins."""


def training_begins(folder: Path) -> None:
    """Mark that nothing of the run may be deleted any more; each rank calls this before its first step."""
    for name in (NOTE, CONFIG_BEFORE, RESULT_BEFORE):
        (folder / name).unlink(missing_ok=True)


def training_has_begun(folder: Path) -> bool:
    """Whether a rank has begun to train since the last start; True if no start is in progress."""
    return not (folder / NOTE).exists()
