"""The code and the configuration as they are when a sweep starts, so that edits do not leak into jobs that wait."""

import json
import shutil
from pathlib import Path

from alexnet_lab import files
from alexnet_lab.files import ROOT
from alexnet_lab.runs import result_file


def take(target: Path) -> None:
    """Copy `src/` and `conf/` to `target`, in place of an older copy, with a note of the revision."""
    shutil.rmtree(target, ignore_errors=True)
    # Compiled files come along, or each rank would compile anew; one that is just being written has a longer ending.
    for name in ("src", "conf"):
        files.copy_tree(ROOT / name, target / name, ignore=shutil.ignore_patterns("*.pyc.*", "*.egg-info"))
    files.write(target / result_file.REVISION, json.dumps(result_file.git_revision(ROOT)))
