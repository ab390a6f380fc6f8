"""One job of a sweep, under any launcher: `python -m alexnet_lab.launch.job`, with its plan as YAML on standard input.

A job with one rank trains in this process.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from alexnet_lab import machine
from alexnet_lab.errors import USER_ERROR, UserError
from alexnet_lab.launch import ranks, running
from alexnet_lab.launch.planning import Plan
from alexnet_lab.launch.stopping import PassedOn
from alexnet_lab.runs import folders

COMMAND = (sys.executable, "-m", "alexnet_lab.launch.job")


def as_text(plan: Plan, cores: Sequence[int]) -> str:
    """The input of a job's process: everything that it needs, so that nothing is composed or looked up again."""
    checkpoint = str(plan.checkpoint) if plan.checkpoint else None
    given = {**vars(plan), "folder": str(plan.folder), "checkpoint": checkpoint, "cores": list(cores)}
    return folders.as_yaml(given)


def run_in_process(plan: Plan) -> int:
    """Run the job of another launcher in a process of its own; returns its exit status."""
    read_end, write_end = os.pipe()  # the job ends when this process does, and `write_end` with it
    variables = os.environ | {ranks.LIFELINE: str(read_end)}
    process = subprocess.Popen(COMMAND, env=variables, stdin=subprocess.PIPE, pass_fds=[read_end], text=True)
    with PassedOn([process]):
        assert process.stdin is not None
        with suppress(BrokenPipeError), process.stdin as pipe:
            pipe.write(as_text(plan, machine.cores()))
        status = process.wait()
    os.close(read_end)
    os.close(write_end)
    return status


def run(given: dict[str, Any]) -> int:
    """Run the job on its share of the cores; returns the exit status."""
    machine.use_cores(given["cores"])
    checkpoint = Path(given["checkpoint"]) if given["checkpoint"] else None
    plan = Plan(Path(given["folder"]), given["settings"], given["continues"], checkpoint)
    try:
        count = running.local_ranks(plan.settings["trainer"])
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(given["cores"]) // count)))
        return running.run(plan)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR


if __name__ == "__main__":
    ranks.end_with_parent()
    machine.print_without_errors()
    sys.exit(run(yaml.load(sys.stdin, folders.Loader)))
