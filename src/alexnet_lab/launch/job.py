"""One job of a sweep: `python -m alexnet_lab.launch.job`, with its plan as JSON on standard input.

The process is the supervisor of the job's ranks, as the command itself is that of a single run's.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from alexnet_lab import machine
from alexnet_lab.errors import USER_ERROR, UserError
from alexnet_lab.launch import planning, supervisor


def to_json(plan: planning.Plan, cores: tuple[int, ...]) -> str:
    """What a job's process is given: all that it needs to know, so that nothing is looked up later."""
    return json.dumps({**vars(plan), "cores": cores}, default=str)


def run(given: dict[str, Any]) -> int:
    """Run the job on its share of the cores; returns the exit status."""
    machine.use_cores(given["cores"])
    checkpoint = Path(given["checkpoint"]) if given["checkpoint"] else None
    plan = planning.Plan(Path(given["folder"]), given["settings"], given["continues"], checkpoint)
    ranks = planning.local_ranks(plan.settings["trainer"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(given["cores"]) // ranks)))
    try:
        return planning.start(plan)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR


if __name__ == "__main__":
    supervisor.end_with_supervisor()
    status = run(json.load(sys.stdin))
    sys.exit(status)
