"""The rows that `evaluate` has written for a run, for comparisons image by image.

Rows count only if they are of the weights and images that the run itself reports: the same split, one view of each
image, and the same accuracy.
"""

import math
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexnet_lab.report.intervals import Difference
from alexnet_lab.report.paired import paired
from alexnet_lab.rows import FILE, SUMMARY, Rows, different_images, read_rows
from alexnet_lab.runs import folders, result_file
from alexnet_lab.runs.run import Run


def difference_by_image(ours: Run, theirs: Run, key: str, confidence: float) -> Difference | None:
    """The difference of the metric `key`, as `test/top1`; None if the rows of a run are missing or of other images.

    Raises:
        UserError: a file of rows is damaged.
    """
    (one, right), (two, right_too) = (_recorded(run, key) for run in (ours, theirs))
    if one is None or two is None or different_images(one, two):
        return None
    found = paired(right, right_too, confidence)
    return Difference(found.value, found.low, found.high, "paired", found.p)


def _recorded(run: Run, key: str) -> tuple[Rows | None, NDArray[np.bool_]]:
    """The rows of a run, and whether each image counts for `key`."""
    split, _, metric = key.partition("/")
    folder, nothing = Path(run.source, folders.ROWS), np.zeros(0, np.bool_)
    summary = result_file.read_result(folder / SUMMARY) or {}
    file = folder / FILE
    if (summary.get("split"), summary.get("protocol")) != (split, "center") or not file.is_file():
        return None, nothing
    rows = _read(file, file.stat().st_mtime_ns)
    right = rows.top1 if metric == "top1" else rows.top5
    return rows if math.isclose(right.mean(), run.figures[key], abs_tol=1e-9) else None, right


@cache
def _read(file: Path, changed: int) -> Rows:
    """Read once for all metrics and runs that need it; `changed` is when the file was written."""
    return read_rows(file)
