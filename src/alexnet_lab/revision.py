"""The revision of this code, for results and loggers. Imports nothing heavy."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from alexnet_lab import places

REVISION = "revision.json"
"""In a copy of the package: the `revision` of the original."""


def revision() -> dict[str, Any] | None:
    """Identifies this code: `git_revision` in a checkout, otherwise the `version` of the package."""
    if (places.PACKAGE / REVISION).exists():
        noted: dict[str, Any] | None = json.loads((places.PACKAGE / REVISION).read_text())
        return noted
    found = git_revision(places.CHECKOUT) if places.CHECKOUT else None
    version = None if found else places.version()
    return {"version": version} if version else found


def repository() -> Path | None:
    """The git repository with the state that `revision` records, for loggers that read it themselves; else None."""
    root = places.CHECKOUT or places.home()  # the latter for a copy of the package in the folder of a sweep
    found = git_revision(root)
    return root if found and found == revision() else None


def git_revision(root: Path) -> dict[str, Any] | None:
    """The commit, and whether tracked files differ from it; None where `root` is not the top of a git repository.

    A repository that only contains `root`, such as that of a virtual environment's project, does not count.
    """
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return {"commit": commit, "modified": bool(_git(root, "status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    # In a hook, these name the repository of the hook.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=10, env=environment)
    return done.stdout.strip()
