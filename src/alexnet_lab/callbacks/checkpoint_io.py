"""Writes checkpoints atomically: after a kill or on a full disk, the older one is intact."""

import logging
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from threading import Thread
from typing import IO, Any, cast

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from alexnet_lab import files
from alexnet_lab.callbacks.host_copy import HostCopy, devices
from alexnet_lab.errors import cannot_be_written

log = logging.getLogger(__name__)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint to a temporary file, flushes it to disk, and renames it.

    After a kill, the older checkpoint is intact; on a full disk as well, and RunFailed is raised. `payload` contains
    plain entries that are added to every checkpoint and must not change; lightning's hook for this skips weights-only
    checkpoints. `progress` is called for each tensor that is written.

    Checkpoints of a GPU for the files in `in_background`, with `also_on_cpu` all for them, are copied to the host and
    written by a thread while training continues: one at a time, in the order of the calls. A call waits only until the
    one before it for the same file is written. Their errors are raised by the next `check`, `wait` or call, and nothing
    is written after one.

    On the CPU this is not the default: the writer shares the cores with the training, and the copies need memory.
    """

    def __init__(
        self,
        payload: Mapping[str, Any],
        in_background: Collection[Path] = (),
        progress: Callable[[], None] = lambda: None,
        also_on_cpu: bool = False,
    ) -> None:
        super().__init__()
        self.also_on_cpu = also_on_cpu
        self._payload, self._progress = payload, progress
        self._copies = {path: HostCopy() for path in in_background}
        self._writes: dict[Path, Thread] = {}
        self._latest: Thread | None = None
        self._error: BaseException | None = None
        self._is_raised = False

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        path = Path(path)
        kinds = devices(checkpoint)
        is_copied = kinds <= {"cpu", "cuda"} and ("cuda" in kinds or self.also_on_cpu)
        if path not in self._copies or not is_copied:
            self.wait()
            self._write(checkpoint, path)
            return
        _join(self._writes.get(path))
        self.check()
        content, wait_for_copy = self._copies[path].of(checkpoint)
        arguments = (self._latest, wait_for_copy, content, path)
        self._latest = self._writes[path] = Thread(target=self._write_after, args=arguments, daemon=True, name="writer")
        self._latest.start()

    def load_checkpoint(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        self.wait()
        return super().load_checkpoint(*args, **kwargs)

    def remove_checkpoint(self, path: Any) -> None:
        self.wait()
        super().remove_checkpoint(path)

    @property
    def is_writing(self) -> bool:
        """Whether a file is being written in the background."""
        return self._latest is not None and self._latest.is_alive()

    def check(self) -> None:
        """Raise the error of a write that has failed."""
        if self._error is not None:
            self._is_raised = True
            raise self._error

    def wait(self) -> None:
        """Wait until everything is written, or raise the error of a write that has failed."""
        _join(self._latest)
        self.check()

    def teardown(self) -> None:
        """Wait until everything is written. Where another exception ends the run, an error is only logged."""
        _join(self._latest)
        if self._error is not None and not self._is_raised:
            self._is_raised = True
            log.warning("%s", self._error)

    def _write_after(
        self, before: Thread | None, wait_for_copy: Callable[[], None], content: dict[str, Any], path: Path
    ) -> None:
        _join(before)
        if self._error is not None:
            return
        try:
            wait_for_copy()
            self._write(content, path)
        except BaseException as error:
            self._error = error

    def _write(self, checkpoint: dict[str, Any], path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with files.replacing(path) as unfinished, unfinished.open("wb") as file:
                torch.save({**checkpoint, **self._payload}, cast(IO[bytes], _Reporting(file, self._progress)))
        except Exception as error:
            cause = error if isinstance(error, OSError) else error.__context__  # torch raises its own error
            if isinstance(cause, OSError):
                raise cannot_be_written(path, cause) from error
            raise
        self._progress()


class _Reporting:
    """A file opened for writing that calls `progress` at each write."""

    def __init__(self, file: IO[bytes], progress: Callable[[], None]) -> None:
        self.flush, self._file, self._progress = file.flush, file, progress

    def write(self, content: bytes) -> int:
        self._progress()
        return self._file.write(content)


def _join(thread: Thread | None) -> None:
    if thread is not None:
        thread.join()
