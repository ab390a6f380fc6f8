"""The comparison of fine-tuning with training from nothing, which `benchmarks/finetune.py --out` measures.

Imports neither torch nor lightning.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from alexnet_lab.runs import result_file

FILE = "fine_tuning.json"


def read_fine_tuning(runs: Path) -> dict[str, Any] | None:
    """The comparison recorded in `runs`; None if there is none."""
    return result_file.read_result(runs / FILE)


def fine_tuning(measured: Mapping[str, Any] | None) -> Iterable[str]:
    """The section of the results page; empty if nothing was measured."""
    if not measured:
        return
    known, hardware, versions = measured["figures"], measured["hardware"], measured["versions"]
    yield from (
        "",
        "## Fine-tuning",
        "",
        f"A network was trained on half of Imagenette's classes for {known['source_epochs']} epochs (top-1 "
        f"{known['source_top1']:.4f} on held-out images). Then the other half was learned from {known['train_images']} "
        f"images of each class in {known['epochs']} epochs, from nothing and from that network. Top-1 is that of the "
        f"last weights on {known['val_images']} validation images, mean and standard deviation over {known['seeds']} "
        "seeds. `python benchmarks/finetune.py` makes the halves and runs the commands.",
        "",
        "| start | top-1 | standard deviation | by seed | s per run |",
        "|---|---|---|---|---|",
    )
    for name, mean, spread, by_seed in measured["rows"]:
        yield f"| {name} | {mean} | {spread} | {by_seed} | {known[f'{name}, s']:.0f} |"
    yield ""
    for name, command in measured["commands"].items():
        yield f"- {name}: `{command}`"
    yield f"- Hardware: {hardware['device']}, {hardware['cores']} cores, {known['at_once']} runs at once"
    yield f"- Versions: {', '.join(f'{name} {versions[name]}' for name in ('python', 'torch', 'lightning'))}"
