"""The code and the configuration as they are when a sweep starts, so that edits do not leak into jobs that wait."""

import json
import shutil
from pathlib import Path

from alexnet_lab import files
from alexnet_lab.commands.folders import ROOT
from alexnet_lab.tracking import record


def take(target: Path) -> None:
    """Copy `src/` and `conf/` to `target`, in place of an older copy, with a note of the revision."""
    shutil.rmtree(target, ignore_errors=True)
    # Compiled files come along, or each rank would compile anew; one that is just being written has a longer ending.
    for name in ("src", "conf"):
        files.copy_tree(ROOT / name, target / name, ignore=shutil.ignore_patterns("*.pyc.*", "*.egg-info"))
    files.write(target / record.REVISION, json.dumps(record.git_revision(ROOT)))
