"""Ensembles: `evaluate.py checkpoint=[A,B,...] out=FILE` measures them; the results page shows the paper's, too.

Imports neither torch nor lightning.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from alexnet_lab import files
from alexnet_lab.errors import UserError
from alexnet_lab.runs import result_file
from alexnet_lab.runs.recipe import ACCURACIES, NOT_MEASURED

FOLDER = "ensembles"
VIEWS = {"center": "centre", "ten_crop": "ten"}


def add_ensemble(file: Path, runs: Path) -> Path:
    """Copy a result of `evaluate.py` for several checkpoints to `runs`, without paths of this machine.

    Raises:
        UserError: see `check_ensemble`.
    """
    kept = {name: value for name, value in check_ensemble(file).items() if name != "checkpoint"}
    target = runs / FOLDER / file.name
    target.parent.mkdir(parents=True, exist_ok=True)
    files.write(target, json.dumps(kept, indent=2) + "\n")
    return target


def check_ensemble(file: Path) -> dict[str, Any]:
    """The content of a result file of `evaluate.py`.

    Raises:
        UserError: the file is missing, or is not a result of several checkpoints on the whole test split.
    """
    content = result_file.read_result(file)
    if content is None:
        raise UserError(f"add={file}: there is no such file")
    if content.get("split") != "test" or len(content.get("networks") or []) < 2:
        raise UserError(f"add={file}: not a result of evaluate for several checkpoints on the test split")
    if not content.get("whole_split"):
        raise UserError(f"add={file}: the networks were not measured on the whole test split")
    return content


def read_ensembles(runs: Path) -> list[dict[str, Any]]:
    """The ensembles recorded below `runs`, sorted by file name."""
    found = [result_file.read_result(path) for path in sorted((runs / FOLDER).glob("*.json"))]
    return [content for content in found if content]


def ensembles(measured: Sequence[Mapping[str, Any]], published: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    """The section of the results page; empty if nothing was published or measured."""
    if not measured and not published:
        return
    yield from ("", "## Ensembles", "", "The class probabilities of several networks are averaged.", "")
    yield "| networks | data | views | top-1, published | top-1 | top-5, published | top-5 | top-1 of each |"
    yield "|---|---|---|---|---|---|---|---|"
    for one in published:
        figures = [cell for name in ACCURACIES for cell in (str(one[name]), NOT_MEASURED)]
        yield f"| {' | '.join([one['networks'], 'imagenet', 'ten', *figures, ''])} |"
    for one in measured:
        figures = [cell for name in ACCURACIES for cell in ("", f"{one[f'test/{name}']:.4f}")]
        each = ", ".join(f"{network['top1']:.4f}" for network in one["networks"])
        names = ", ".join(network["network"] for network in one["networks"])
        yield f"| {' | '.join([names, one['data'], VIEWS[one['protocol']], *figures, each])} |"
