"""Copies code and configuration when a sweep starts, so that later edits do not affect its jobs."""

import json
import shutil
from pathlib import Path

from alexnet_lab import files, places, revision


def take(target: Path) -> None:
    """Copy the package with its configurations to `target`, as a wheel holds them, and record the revision.

    An older copy is replaced. `target` is the folder for PYTHONPATH.
    """
    shutil.rmtree(target, ignore_errors=True)
    # Compiled files are copied, so that ranks need not compile; files that are being written have a longer ending.
    ignored = shutil.ignore_patterns("*.pyc.*")
    package = target / places.PACKAGE.name
    files.copy_tree(places.PACKAGE, package, ignored)
    files.copy_tree(places.CONF, conf(target), ignored)
    files.write(package / revision.REVISION, json.dumps(revision.revision()))


def conf(target: Path) -> Path:
    """The configurations in a copy."""
    return target / places.PACKAGE.name / "conf"
