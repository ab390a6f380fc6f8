"""A progress bar with images per second, remaining time and top-1, on standard error if that is a terminal."""

import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from alexnet_lab.metrics import ClassificationMetrics

REFRESH_SECONDS = 0.2
NARROW = 70
"""Columns below which there is no room for the bar itself."""
NARROW_FORMAT = "{desc} {percentage:.0f}% {remaining} left{postfix}, {rate_fmt}"
"""Most important first, because the bar is cut off at the terminal's width."""


def columns() -> int | None:
    """The width of the terminal in characters; None if standard error is not a terminal."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or None
    except (OSError, ValueError):
        return None


def wrapped(parts: Sequence[str], width: int | None) -> str:
    """`parts` in one line, two spaces apart; with a `width`, in as many lines as needed, without splitting a part."""
    lines = [""]
    for part in parts:
        if width and lines[-1].strip() and len(lines[-1]) + 2 + len(part) > width:
            lines.append("")
        lines[-1] += f"  {part}" if lines[-1] or len(lines) > 1 else part
    return "\n".join(lines)


def _format() -> str | None:
    """tqdm's own format where there is room for it."""
    return NARROW_FORMAT if (columns() or NARROW) < NARROW else None


class Bar:
    """A bar over the images of one pass over the data. The next pass starts a new bar."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._images = 0.0  # since it was drawn
        self._drawn_at = 0.0

    def advance(
        self, title: str, images: float, batch_idx: int, batches: int | float, metrics: ClassificationMetrics
    ) -> None:
        """Count the `images` of batch `batch_idx` of `batches`; close the bar after the last one."""
        if not sys.stderr.isatty():
            return
        if self._bar is None:
            self._bar = tqdm(
                total=int(batches) * images,
                initial=batch_idx * images,
                desc=title,
                unit=" images",
                unit_scale=True,
                leave=False,
                dynamic_ncols=True,
                mininterval=0,
                bar_format=_format(),
            )
        self._images += images
        now = time.monotonic()
        if now - self._drawn_at > REFRESH_SECONDS:
            self._drawn_at = now
            if sums := metrics.latest():
                self._bar.set_postfix_str(f"top1 {sums[1] / max(1, sums[3]):.3f}", refresh=False)
            self._bar.bar_format = _format()  # the window may have been resized
            self._bar.update(self._images)
            self._images = 0.0
        if batch_idx + 1 >= batches:
            self.close()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar, self._images = None, 0.0
