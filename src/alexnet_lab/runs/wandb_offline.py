"""Reads W&B's offline folders through `wandb leet inspect --json`, the supported way; no account, no network.

Source: wandb's command line (`wandb leet inspect --help`). One record per line: `config`, `history` and `run` have what
is wanted. With `--summary` one object tells the state and the last values.
"""

import json
import math
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from alexnet_lab.runs.run import Run
from alexnet_lab.runs.wandb_runs import STEP, run_of_wandb

PREFIX = "offline-run-"
LONGEST = 120.0  # seconds for one run


def run_of(folder: Path) -> Path:
    """What the folders of one run, one for each time that it was continued, have in common."""
    return folder.parent / folder.name.rpartition("-")[2] if folder.name.startswith(PREFIX) else folder


def read(folders: Sequence[Path], name: str) -> Run:
    """The run in these offline folders, the oldest first, named as in W&B.

    One that cannot be read is a failed run `name` that says why. Of what was done twice, since a continuation began
    before the point that had been reached, the later counts.
    """
    history: list[Mapping[str, Any]] = []
    try:
        for folder in folders:
            records = [json.loads(line) for line in _inspect(folder).splitlines() if line.strip()]
            items = _history(records)
            begin = min((item[STEP] for item in items if STEP in item), default=math.inf)
            history = [item for item in history if item.get(STEP, 0) < begin] + items
        summary = json.loads(_inspect(folders[-1], "--summary"))
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return Run(name, str(folders[-1]), "failed", {}, error=f"wandb cannot read it: {_reason(error)}")
    return run_of_wandb(
        name=f"{summary['name']} ({summary['run_id']})" if summary.get("name") else name,
        source=str(folders[-1]),
        state=str(summary.get("state", "")),
        config=summary.get("config") or {},
        summary=summary.get("summary") or {},
        history=history,
    )


def _history(records: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [record["history"]["item"] for record in records if record.get("type") == "history"]


def _inspect(folder: Path, *options: str) -> str:
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", *options, str(folder)]
    ended = subprocess.run(command, check=True, capture_output=True, text=True, timeout=LONGEST)
    return ended.stdout


def _reason(error: Exception) -> str:
    said = str(getattr(error, "stderr", "") or error).strip().splitlines()
    return said[-1] if said else type(error).__name__
