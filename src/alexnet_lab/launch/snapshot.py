"""Copies code and configuration when a sweep starts, so that later edits do not affect its jobs."""

import json
import shutil
from pathlib import Path

from alexnet_lab import files
from alexnet_lab.files import ROOT
from alexnet_lab.runs import result_file


def take(target: Path) -> None:
    """Copy `src/` and `conf/` to `target`, replacing an older copy, and record the revision."""
    shutil.rmtree(target, ignore_errors=True)
    # Compiled files are copied, so that ranks need not compile; files that are being written have a longer ending.
    for name in ("src", "conf"):
        files.copy_tree(ROOT / name, target / name, ignore=shutil.ignore_patterns("*.pyc.*", "*.egg-info"))
    files.write(target / result_file.REVISION, json.dumps(result_file.git_revision(ROOT)))
