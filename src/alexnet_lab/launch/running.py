"""Runs a plan: in this process, as one rank of torchrun or srun, or in one process per rank.

Imports neither torch nor lightning before the folder is taken.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from alexnet_lab.errors import FAILED, INTERRUPTED, UserError
from alexnet_lab.launch import ending, environment, ownership, ranks, slots, slurm, starting
from alexnet_lab.launch.planning import Plan
from alexnet_lab.launch.stopping import (
    PassedOn,
    StopRequests,
    end_before_training,
    end_one_of_several,
    print_first_request,
)
from alexnet_lab.runs import folders, result_file

CLAIM_SECONDS = 60.0


def run(plan: Plan) -> int:
    """Run `plan` to its end; returns the exit status of the command.

    Raises:
        UserError: the folder is taken or locked.
    """
    of_torchrun = environment.of_torchrun()
    if of_torchrun or slurm.here().in_step:
        return _one_of_several(plan, of_torchrun)
    count = local_ranks(plan.settings["trainer"])
    if count > 1:
        checkpoint = [str(plan.checkpoint)] if plan.checkpoint else []
        command = [sys.executable, "-m", "alexnet_lab.launch.rank", str(plan.folder), *checkpoint]
        with PassedOn([], plan.folder) as requests:
            return _own(plan, lambda: ranks.run_ranks(command, plan.folder, count, requests))
    environment.clean({})
    with StopRequests(lambda: print_first_request(plan.folder), lambda: ending.end_at_once(plan.folder)) as stop:
        return _own(plan, lambda: stop.run(plan.folder, lambda: _train(plan, stop)))


def _own(plan: Plan, train: Callable[[], int], rank: int | None = None) -> int:
    """Hold the folder while `train` works in it, and report how that ended; `rank` as in `ending.conclude`."""
    with ownership.lock(plan.folder):
        if plan.continues and not (plan.folder / folders.RESULT).exists():
            print(f"run {plan.folder.name} failed: {result_file.KILLED}; {_from(plan)}", file=sys.stderr, flush=True)
            ending.write(plan.folder, "failed", error=result_file.KILLED)
        starting.prepare(plan.folder, plan.settings, plan.continues)
        return ending.conclude(plan.folder, train(), rank)


def _from(plan: Plan) -> str:
    return f"continuing from {plan.checkpoint}" if plan.checkpoint else "starting again, without a checkpoint"


def _train(plan: Plan, stop: StopRequests) -> int:
    from alexnet_lab.launch.rank import run_rank

    return run_rank(plan.folder, plan.settings, plan.checkpoint, stop)


def _one_of_several(plan: Plan, of_torchrun: Mapping[str, str] | None) -> int:
    """Be one of the ranks that torchrun or srun has started; rank 0 owns the folder."""
    rank = int(of_torchrun["RANK"]) if of_torchrun else slurm.here().rank

    def train() -> int:
        variables = of_torchrun or slurm.here().call_ranks(plan.folder)
        return _train_with_others(plan, stop, variables, rank)

    def follow() -> int:
        if of_torchrun:
            _await_claim(plan, stop, rank)
        return _train_with_others(
            plan, stop, of_torchrun or slurm.here().await_call(plan.folder, stop.raise_if_requested), rank
        )

    answer = end_before_training if rank else print_first_request
    at_once = (lambda: os._exit(INTERRUPTED)) if rank else (lambda: ending.end_at_once(plan.folder))
    with StopRequests(lambda: answer(plan.folder), at_once) as stop:
        if rank == 0:
            status = _own(plan, lambda: stop.run(plan.folder, train), rank)
        else:
            status = ending.conclude(plan.folder, stop.run(plan.folder, follow), rank)
    if status == FAILED:
        end_one_of_several(status)
    return status


def _train_with_others(plan: Plan, stop: StopRequests, variables: Mapping[str, str], rank: int) -> int:
    environment.clean(variables)
    with ending.watching_other_ranks(plan.folder, rank):
        return _train(plan, stop)


def _await_claim(plan: Plan, stop: StopRequests, rank: int) -> None:
    """Wait until rank 0 of this start of torchrun has taken the folder."""
    deadline = time.monotonic() + CLAIM_SECONDS
    while not starting.has_prepared(plan.folder):
        stop.raise_if_requested()
        if time.monotonic() > deadline:
            raise UserError(f"rank {rank} waited {CLAIM_SECONDS:.0f} s for rank 0 to start the run in {plan.folder}")
        time.sleep(0.1)


def local_ranks(trainer: Mapping[str, Any]) -> int:
    """How many processes of this machine the trainer's `devices` asks for.

    Raises:
        UserError: `devices` or `num_nodes` is not of the kind that lightning takes.
    """
    devices, nodes = trainer.get("devices", 1), trainer.get("num_nodes", 1)
    if type(nodes) is not int or nodes < 1:
        raise UserError(f"trainer.num_nodes={nodes}: a whole number of at least 1")
    if devices in ("auto", -1, "-1") and not isinstance(devices, bool):
        return _usable_gpus(trainer)
    # "0,1" and "0," are indices, "2" is a number.
    listed = isinstance(devices, str) and "," in devices
    indices = [part for part in devices.split(",") if part.strip()] if listed else devices
    if isinstance(indices, list) and indices and all(_is_number(one, 0) for one in indices):
        return len(indices)
    if not _is_number(devices, 1):
        raise UserError(f"trainer.devices={devices}: a number of devices, a list of their indices, or auto")
    return int(devices)


def _is_number(value: Any, least: int) -> bool:
    text = str(value).strip()
    return not isinstance(value, bool | float) and text.isascii() and text.isdecimal() and int(text) >= least


def _usable_gpus(trainer: Mapping[str, Any]) -> int:
    count = len(slots.usable_gpus(trainer))
    if count == 0 and trainer.get("accelerator") == "auto" and sys.platform == "linux":
        print("trainer.devices=auto: there is no GPU here, so one process trains on the CPU", file=sys.stderr)
    return max(1, count)
