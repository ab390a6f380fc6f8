"""What a run says at its end: the figures, the time, and where everything lies."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from alexnet_lab.commands import folders
from alexnet_lab.tracking import record


def print_summary(folder: Path) -> None:
    """Print the recorded result of the run in `folder`, and below it the paths, whole."""
    result = record.read_result(folder / folders.RESULT)
    assert result is not None
    table = Table(title=f"run {folder.name}: {result['status']}", show_header=False, title_justify="left")
    for label, text in _rows(result):
        table.add_row(label, text)
    console = Console()
    console.print(table)
    for label, path in {
        "folder": folder,
        **{name: folder / path for name, path in result["checkpoints"].items()},
    }.items():
        console.print(f"{label}: {path}", markup=False, highlight=False, soft_wrap=True)


def _rows(result: dict[str, Any]) -> Iterable[tuple[str, str]]:
    final, best = result["final"], result["best"]
    for name in ("test/top1", "test/top5", "test/loss"):
        if name in final:
            yield name, f"{final[name]:.4f}"
    if "val/top1" in best:
        yield "best val/top1", f"{best['val/top1']:.4f} (epoch {result['best_epoch'] + 1})"
    yield "time", f"{result['seconds']:.1f} s"
    if result["images_per_second"]:
        yield "training rate", f"{result['images_per_second']:,.0f} images/s on {result['world_size']} process(es)"
    yield "parameters, MACs", f"{result['parameters']:,}, {result['macs']:,}"
