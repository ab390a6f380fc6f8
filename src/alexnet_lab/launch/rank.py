"""One rank of a run. One of several has a process: `python -m alexnet_lab.launch.rank FOLDER [CHECKPOINT]`.

Exit status: 0 finished, 1 failed, 2 a user's error before anything was trained, 3 interrupted.
"""

import atexit
import faulthandler
import gc
import logging
import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, cast

from alexnet_lab import distributed, machine
from alexnet_lab.config.recipes import naming_recipes
from alexnet_lab.errors import FINISHED, INTERRUPTED, QUIT, STOPPED, fitting_libraries
from alexnet_lab.launch import ending, gpus, precision, ranks
from alexnet_lab.launch.stopping import StopRequests, end_before_training, end_one_of_several
from alexnet_lab.launch.watchdog import Watchdog
from alexnet_lab.runs import folders, result_file

# Warnings of libraries that tell the user nothing.
NOISE = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    r"The number of training batches .* is smaller than the logging interval",
    r"It is recommended to use `self.log\(.*sync_dist=True",  # our metrics are those of all ranks already
    r"The `srun` command is available on your system",  # a single run is no mistake there
)

INNERMOST = 8
"""Frames of a hanging main thread that are reported; the log has all."""
WAITS = ("torch/distributed/", "torch/nn/parallel/distributed.py", "torch/autograd/", "callbacks/agreement.py")
"""Files of the innermost frame of a rank that waits for another one. DDP also waits in the backward pass."""
OTHERS_SECONDS = 5.0

log = logging.getLogger(__name__)


def run_rank(
    folder: Path, settings: dict[str, Any], checkpoint: Path | None, stop: StopRequests, is_watched: bool = False
) -> int:
    """Run the part of this rank; every way in which it can end is recorded and becomes an exit status.

    `is_watched`: whether a parent process reports how the run ended.

    Raises:
        RunInterrupted: a request to stop arrived before the training began.
    """
    started = time.time()
    rank = distributed.rank()
    written = _log_to(folder / ("train.log" if rank == 0 else f"train.rank{rank}.log"), speak=rank == 0)
    timeout = settings.get("hang_timeout")
    watchdog = Watchdog(timeout, lambda stack: _end_hanging(folder, rank, timeout, stack, is_watched), written)
    watchdog.start()
    try:
        with _without_collection(), fitting_libraries():
            from alexnet_lab.training import train

        gpus.check(settings["trainer"].get("accelerator"), gpus.look())
        settings = precision.choose(settings, folder)
        silence_lightning()
        with naming_recipes(settings["overrides"]):
            train(settings, folder, checkpoint, started, watchdog.progress, lambda: stop.requested)
    except (*STOPPED, KeyboardInterrupt) as stopped:
        log.warning("interrupted (%s)", str(stopped) or QUIT, extra=ending.FILE_ONLY)
        return INTERRUPTED
    except (Exception, SystemExit) as error:
        if stop.requested and not folders.training_has_begun(folder):  # a library made another error of the request
            return INTERRUPTED
        return ending.fail(folder, error)
    finally:
        watchdog.stop()
    return FINISHED


@contextmanager
def _without_collection() -> Iterator[None]:
    """Import without garbage collection: it would search the imported objects many times, which live until the end."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()
        atexit.register(gc.unfreeze)  # Triton 3.9 lists everything that is left at exit


def _end_hanging(folder: Path, rank: int, seconds: float | None, stack: list[str], is_watched: bool) -> None:
    """End this process from outside of its main thread, which waits for something that does not come.

    When the result is recorded, the loggers are what takes so long; they have limits of their own.
    """
    result = folder / folders.RESULT
    if (result_file.read_result(result) or {}).get("status") in (*result_file.ENDED_WELL, "interrupted"):
        return
    log.error("no progress for %g s; the main thread is in\n%s", seconds, "".join(stack), extra=ending.FILE_ONLY)
    innermost = "".join(stack[-INNERMOST:])
    if any(place in stack[-1] for place in WAITS):  # it waits for another rank, which knows where it is
        deadline = time.monotonic() + OTHERS_SECONDS
        while not result.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
    error = f"rank {rank} finished no batch for {seconds:g} s (hang_timeout); it was in\n{innermost}"
    status = ending.fail(folder, error)
    if not is_watched:
        ending.conclude(folder, status, rank)
    logging.shutdown()
    os._exit(status)


def _log_to(path: Path, speak: bool) -> TextIO:
    """Log to the file of the rank; rank 0's own lines and all warnings go to the terminal, too. Returns the open file.

    It also gets the stacks of a native crash.
    """
    file = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handlers: list[logging.Handler] = [file]
    if speak:
        terminal = logging.StreamHandler()
        terminal.setFormatter(logging.Formatter("%(message)s"))
        terminal.addFilter(_is_for_the_terminal)
        handlers.append(terminal)
    logging.basicConfig(level=logging.INFO, handlers=handlers, force=True)
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # a log that cannot be written, as on a full disk, is no reason for a traceback
    for pattern in NOISE:
        warnings.filterwarnings("ignore", message=pattern)
    stream = cast(TextIO, file.stream)
    faulthandler.enable(file=stream)
    return stream


def _is_for_the_terminal(entry: logging.LogRecord) -> bool:
    ours = entry.levelno >= logging.WARNING or entry.name.startswith("alexnet_lab")
    return ours and not getattr(entry, "file_only", False)


def silence_lightning() -> None:
    """Lightning prints by handlers of its own, tips among it; its warnings go through ours."""
    for name in list(logging.root.manager.loggerDict):
        if name.split(".")[0] in ("lightning", "lightning_utilities"):
            logging.getLogger(name).handlers.clear()
            logging.getLogger(name).propagate = True
            logging.getLogger(name).setLevel(logging.WARNING)


def main(arguments: list[str]) -> int:
    """Run the rank that the environment describes in the folder that the arguments name."""
    ranks.end_with_parent()
    machine.print_without_errors()
    # A terminal's signals reach every process of its group, and Slurm's every process of a job. The parent alone
    # decides what they mean, and sends SIGTERM.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    folder = Path(arguments[0])
    checkpoint = Path(arguments[1]) if len(arguments) > 1 else None
    with StopRequests(lambda: end_before_training(folder), signals=(signal.SIGTERM,)) as stop:
        return stop.run(folder, lambda: run_rank(folder, folders.read_config(folder), checkpoint, stop, True))


if __name__ == "__main__":
    end_one_of_several(main(sys.argv[1:]))
