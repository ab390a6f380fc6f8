"""Runs a command other than `train` on several ranks of this machine, which `ranks` starts and watches as in training.

A scratch folder takes the place of a run's folder: the ranks find the options there, and record there why one failed.
No training begins in it, so a request to stop ends all ranks at once. Imports nothing heavy.
"""

import json
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alexnet_lab import distributed, files, machine
from alexnet_lab.errors import FINISHED, INTERRUPTED, USER_ERROR, RunFailed, UserError
from alexnet_lab.launch import ranks
from alexnet_lab.launch.stopping import PassedOn
from alexnet_lab.runs import folders, result_file

OPTIONS, RETURNED = "options.json", "returned.json"


def run_on_ranks(module: str, options: dict[str, Any], count: int, share_cores: bool = False) -> Any:
    """Run `module`, which calls `rank_main`, with plain `options` on `count` ranks; returns what rank 0 returned.

    `share_cores`: see `ranks.run_ranks`.

    Raises:
        UserError: a rank raised one.
        RunFailed: a rank failed, or was killed.
        KeyboardInterrupt: somebody asked to stop.
    """
    with tempfile.TemporaryDirectory(prefix="alexnet_lab-") as name:
        folder = Path(name)
        (folder / folders.NOTE).touch()
        files.write(folder / OPTIONS, json.dumps(options))
        with PassedOn([], folder) as requests:
            command = [sys.executable, "-m", module, name]
            status = ranks.run_ranks(command, folder, count, requests, share_cores)
        if status == FINISHED:
            return json.loads((folder / RETURNED).read_text())
        result = result_file.read_result(folder / folders.RESULT) or {}
    if status == INTERRUPTED:
        raise KeyboardInterrupt
    error = str(result.get("error") or f"a rank ended with status {status}")
    if status == USER_ERROR:
        raise UserError(error)
    if result.get("traceback"):
        print(result["traceback"], file=sys.stderr)
    raise RunFailed(error if error.startswith("rank ") else f"rank {result.get('rank', 0)} failed: {error}")


def rank_main(work: Callable[[dict[str, Any]], Any]) -> int:
    """Be the rank that the environment describes: call `work` with the options; returns the exit status."""
    ranks.end_with_parent()
    machine.print_without_errors()
    # A terminal's signals reach every process of its group. The parent alone decides what they mean.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    folder = Path(sys.argv[1])
    try:
        returned = work(json.loads((folder / OPTIONS).read_text()))
        if distributed.rank() == 0:
            files.write(folder / RETURNED, json.dumps(returned))
    except (Exception, SystemExit) as error:
        result_file.record_failure(folder, error)
        return result_file.status_after(folder, error)
    return FINISHED
