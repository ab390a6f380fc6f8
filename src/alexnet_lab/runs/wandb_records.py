"""Turns what W&B keeps of a run into a `Run`, from the server and from offline folders.

Offline folders are read through `wandb leet inspect --json`, the supported way, without an account or a network. It
prints one record per line, of which `history` has the metrics; with `--summary` one object has the state and the last
values (source: `wandb leet inspect --help`).
"""

import json
import math
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from alexnet_lab.runs.folders import with_precision
from alexnet_lab.runs.former_networks import with_current_keys
from alexnet_lab.runs.run import Run

FACTS = ("parameters", "macs", "git", "versions", "world_size", "hardware", "images", "images_per_second", "seconds")
"""The entries of `result.json` that training adds to the run's configuration in W&B."""
STEP = "trainer/global_step"
STATUS = {
    "finished": "finished",
    "failed": "failed",
    "crashed": "failed",
    "killed": "interrupted",
    "preempted": "interrupted",
}
"""By W&B's state."""
LONGEST = 120.0
"""Seconds for one run."""


def read_offline(folders: Sequence[Path], name: str) -> Run:
    """The run in these offline folders, the oldest first, named as in W&B.

    If a continuation began before the point that had been reached, the later rows replace the earlier ones. A run that
    cannot be read is a failed run `name` with the reason.
    """
    history: list[Mapping[str, Any]] = []
    try:
        for folder in folders:
            records = [json.loads(line) for line in _inspect(folder).splitlines() if line.strip()]
            items = [record["history"]["item"] for record in records if record.get("type") == "history"]
            begin = min((item[STEP] for item in items if STEP in item), default=math.inf)
            history = [item for item in history if item.get(STEP, 0) < begin] + items
        summary = json.loads(_inspect(folders[-1], "--summary"))
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return Run(name, str(folders[-1]), {}, {"status": "failed", "error": f"wandb cannot read it: {_reason(error)}"})
    return run_of_wandb(
        name=f"{summary['name']} ({summary['run_id']})" if summary.get("name") else name,
        source=str(folders[-1]),
        state=str(summary.get("state", "")),
        config=summary.get("config") or {},
        summary=summary.get("summary") or {},
        history=history,
    )


def run_of_wandb(
    name: str,
    source: str,
    state: str,
    config: Mapping[str, Any],
    summary: Mapping[str, Any],
    history: Iterable[Mapping[str, Any]],
) -> Run:
    """A `Run` of W&B's state, nested config, summary (which may hold `{max: value}`) and history rows."""
    facts = {key: place[key] for place in (config, summary) for key in FACTS if place.get(key) is not None}
    if "_runtime" in summary:
        facts.setdefault("seconds", summary["_runtime"])
    facts["status"] = "pruned" if summary.get("status") == "pruned" else STATUS.get(state)
    facts["error"] = f"W&B: the run {state}" if facts["status"] == "failed" else None
    facts["best"] = {key: value for key, value in map(_best, summary.items()) if isinstance(value, int | float)}
    recorded = {key: value for key, value in config.items() if not _is_fact(key)}
    return Run(
        name=name,
        source=source,
        config=with_precision(with_current_keys(recorded), facts),
        result=facts,
        rows=[_row(item) for item in history],
    )


def _is_fact(key: str) -> bool:
    return key in FACTS or key.startswith("_")


def _row(item: Mapping[str, Any]) -> dict[str, float]:
    numbers = {key: _number(value) for key, value in item.items() if not key.startswith("_")}
    row = {"step" if key == STEP else key: value for key, value in numbers.items() if value is not None}
    if "step" not in row and _number(item.get("_step")) is not None:
        row["step"] = float(item["_step"])
    return row


def _number(value: Any) -> float | None:
    """W&B writes NaN and the infinities as words."""
    if isinstance(value, str) and value in ("NaN", "Infinity", "-Infinity"):
        return float(value.replace("Infinity", "inf"))
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _best(entry: tuple[str, Any]) -> tuple[str, Any]:
    key, value = entry
    return key, next(iter(value.values()), None) if isinstance(value, Mapping) else value


def _inspect(folder: Path, *options: str) -> str:
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", *options, str(folder)]
    ended = subprocess.run(command, check=True, capture_output=True, text=True, timeout=LONGEST)
    return ended.stdout


def _reason(error: Exception) -> str:
    lines = str(getattr(error, "stderr", "") or error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__
