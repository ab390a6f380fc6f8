"""Whether training has begun in a run's folder: until then a start may be undone, see `alexnet_lab.launch.starting`.

Imports nothing heavy.
"""

from pathlib import Path

NOTE = ".starting"
CONFIG_BEFORE, RESULT_BEFORE = ".config.before", ".result.before"
"""The record of an earlier start, until training begins."""


def training_begins(folder: Path) -> None:
    """Nothing of the run is deleted from now on; each rank calls this before its first step."""
    for name in (NOTE, CONFIG_BEFORE, RESULT_BEFORE):
        (folder / name).unlink(missing_ok=True)


def training_has_begun(folder: Path) -> bool:
    """Whether any rank has begun to train since the last start; True for a run that is not starting at all."""
    return not (folder / NOTE).exists()
