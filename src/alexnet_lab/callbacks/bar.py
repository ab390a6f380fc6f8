"""A bar with images per second, time left and top-1, on standard error where that is a terminal."""

import sys
import time
from typing import Any

from tqdm import tqdm

from alexnet_lab.metrics import ClassificationMetrics

REFRESH_SECONDS = 0.2


class Bar:
    """A bar over the images of one pass over the data; the next pass begins a new one."""

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
                unit="image",
                unit_scale=True,
                leave=False,
                dynamic_ncols=True,
                mininterval=0,
            )
        self._images += images
        now = time.monotonic()
        if now - self._drawn_at > REFRESH_SECONDS:
            self._drawn_at = now
            count = max(1, int(metrics.count))
            self._bar.set_postfix_str(f"top1 {int(metrics.top1) / count:.3f}", refresh=False)
            self._bar.update(self._images)
            self._images = 0.0
        if batch_idx + 1 >= batches:
            self.close()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar, self._images = None, 0.0
