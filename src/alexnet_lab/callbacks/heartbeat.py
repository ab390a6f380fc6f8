"""Reports progress to the watchdog."""

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl


class Heartbeat(pl.Callback):
    """Calls `progress` after every batch, pass over the data and checkpoint."""

    def __init__(self, progress: Callable[[], None]) -> None:
        self._progress = progress

    def on_train_start(self, *_: Any) -> None:
        self._progress()

    def on_test_start(self, *_: Any) -> None:
        self._progress()

    def on_train_batch_end(self, *_: Any) -> None:
        self._progress()

    def on_validation_batch_end(self, *_: Any) -> None:
        self._progress()

    def on_test_batch_end(self, *_: Any) -> None:
        self._progress()

    def on_train_epoch_end(self, *_: Any) -> None:
        self._progress()

    def on_validation_end(self, *_: Any) -> None:
        self._progress()

    def on_test_end(self, *_: Any) -> None:
        self._progress()

    def on_save_checkpoint(self, *_: Any) -> None:
        self._progress()
