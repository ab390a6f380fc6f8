"""What W&B keeps of a run, turned into a `Run`: the same for offline folders and for the server."""

from collections.abc import Iterable, Mapping
from typing import Any

from alexnet_lab.runs.run import Run, Status

# What training tells W&B's config beside the run's configuration.
FACTS = ("parameters", "macs", "git", "versions", "world_size", "hardware", "images", "images_per_second", "seconds")
STEP = "trainer/global_step"
STATES: Mapping[str, Status] = {
    "finished": "finished",
    "failed": "failed",
    "crashed": "failed",
    "killed": "interrupted",
    "preempted": "interrupted",
}


def run_of_wandb(
    name: str,
    source: str,
    state: str,
    config: Mapping[str, Any],
    summary: Mapping[str, Any],
    history: Iterable[Mapping[str, Any]],
) -> Run:
    """A `Run` of W&B's state, nested config, summary (which may hold `{max: value}`) and history rows."""
    status = STATES.get(state, "unfinished")
    facts = {key: place[key] for place in (config, summary) for key in FACTS if place.get(key) is not None}
    if "_runtime" in summary:
        facts.setdefault("seconds", summary["_runtime"])
    return Run(
        name=name,
        source=source,
        status=status,
        config={key: value for key, value in config.items() if key not in FACTS and not key.startswith("_")},
        facts=facts,
        rows=[_row(item) for item in history],
        best={key: value for key, value in map(_best, summary.items()) if isinstance(value, int | float)},
        error=f"W&B: the run {state}" if status == "failed" else None,
    )


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
