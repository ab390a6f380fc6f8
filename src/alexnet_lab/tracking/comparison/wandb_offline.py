"""Reads W&B's offline folders through `wandb leet inspect --json`, the supported way; no account, no network.

Source: wandb's command line (`wandb leet inspect --help`). One record per line: `config`, `history` and `run` have what
is wanted. With `--summary` one object tells the state and the last values.
"""

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from alexnet_lab.tracking.comparison.runs import Run
from alexnet_lab.tracking.comparison.wandb_runs import run_of_wandb

PREFIX = "offline-run-"
LONGEST = 120.0  # seconds for one run


def read(folder: Path, name: str) -> Run:
    """The run in an offline folder, named as in W&B; one that cannot be read is a failed run `name` that says why."""
    try:
        summary = json.loads(_inspect(folder, "--summary"))
        records = [json.loads(line) for line in _inspect(folder).splitlines() if line.strip()]
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return Run(name, str(folder), "failed", {}, error=f"wandb cannot read it: {_reason(error)}")
    return run_of_wandb(
        name=f"{summary['name']} ({summary['run_id']})" if summary.get("name") else name,
        source=str(folder),
        state=str(summary.get("state", "")),
        config=summary.get("config") or {},
        summary=summary.get("summary") or {},
        history=_history(records),
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
