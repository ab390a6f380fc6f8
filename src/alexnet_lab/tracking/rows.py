"""Reads `metrics.csv`. Imports nothing heavy, since whoever watches a run from outside reads it too."""

import csv
from pathlib import Path


def read_columns(path: Path) -> list[str]:
    """The header of a `metrics.csv`; empty where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return next(csv.reader(file), [])


def read_rows(path: Path) -> list[dict[str, float]]:
    """The rows of a `metrics.csv`, each with the figures that it has; a last row cut off by a kill is left out."""
    if not path.exists():
        return []
    text = path.read_text()
    whole = text[: text.rfind("\n") + 1]
    rows = csv.DictReader(whole.splitlines())
    return [{name: float(value) for name, value in row.items() if value} for row in rows]
