"""From a composed configuration to running ranks: the folder, the recorded configuration, the processes.

Imports neither torch nor lightning, so that whatever is wrong with folders and resuming is said at once.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from alexnet_lab.command_line import command, from_here, override
from alexnet_lab.config.keys import check_choices
from alexnet_lab.errors import UserError
from alexnet_lab.launch import ending, naming, ownership, resume, slots, slurm, starting, supervisor
from alexnet_lab.runs import folders, result_file
from alexnet_lab.runs.run import read_run

CLAIM_SECONDS = 60.0


@dataclass(frozen=True)
class Plan:
    """What is to be run: the settings, whether the folder holds the run already, and where it goes on from."""

    folder: Path
    settings: dict[str, Any]
    continues: bool = False
    checkpoint: Path | None = None


def _print_finished(folder: Path) -> None:
    """Print that nothing is left to do, and the command that trains longer where other settings were asked for."""
    print(f"run {folder.name} has finished already; its results are in {folder}")
    overrides, recorded = list(HydraConfig.get().overrides.task), folders.read_config(folder)
    if resume.continued(recorded, overrides, str(folder)) != recorded:
        new = [text for text in overrides if not text.startswith(("run=", "+run=", "resume="))]
        print(f"to continue it with other settings: {command('train', override('resume', from_here(folder)), *new)}")


def started_from_outside() -> bool:
    """Whether torchrun or srun has started this process as one rank of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ or slurm.in_step()


def plan(config: DictConfig, folder: Path) -> Plan | None:
    """What to do; None when the run has finished and `resume=auto` leaves nothing to do.

    Raises:
        UserError: the continued run was another one, or there is nothing to continue.
    """
    overrides = list(HydraConfig.get().overrides.task)
    if config.resume is None and slurm.restarted():
        config.resume = "auto"
    check_choices(overrides)
    _check_resume(config, overrides, folder)
    settings = _resolved(config, folder, overrides)
    if config.resume is None or not (folder / folders.CONFIG).exists():
        return Plan(folder, settings)
    run = read_run(folder)
    run.check_readable()
    settings = resume.continued(dict(run.config), overrides, str(folder))
    finished = run.status in ("finished", "pruned")
    if config.resume == "auto" and finished:
        return None
    given = Path(str(config.resume))
    checkpoint = given.resolve() if given.suffix == ".ckpt" else folder / folders.LAST
    if finished and not checkpoint.exists():
        raise UserError(f"resume={config.resume}: the run has finished, and there is no {checkpoint} to continue from")
    return Plan(folder, settings, continues=True, checkpoint=checkpoint if checkpoint.exists() else None)


def _check_resume(config: DictConfig, overrides: list[str], folder: Path) -> None:
    """Refuse a resume that names no run, or two."""
    named = any(text.startswith(("run=", "+run=")) for text in overrides)
    if config.resume == "auto":
        explicit = any(text.startswith("hydra.") and ".dir=" in text for text in HydraConfig.get().overrides.hydra)
        if not (named or explicit or started_from_outside() or "SLURM_JOB_ID" in os.environ):
            raise UserError("resume=auto needs run=NAME, to find the run again")
    elif config.resume is not None and HydraConfig.get().mode == RunMode.MULTIRUN:
        raise UserError(f"resume={config.resume}: a sweep takes resume=auto with run=NAME")
    elif config.resume is not None:
        # An explicit hydra.run.dir has not looked at what is to be resumed.
        of_resume = naming.run_folder(str(folder.parent), folder.name, str(config.resume))
        if Path(of_resume).resolve() != folder.resolve():
            raise UserError(f"resume={config.resume} is another run than that of hydra.run.dir={folder}")
        if named and config.run != folder.name:
            raise UserError(f"resume={config.resume} is another run than run={config.run}")


def _resolved(config: DictConfig, folder: Path, overrides: list[str]) -> dict[str, Any]:
    config.folder = str(folder)
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        config.sweep_name = folder.parent.name
    container = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(container, dict)
    container |= {"overrides": overrides, "resume": None}
    container["logger"] = container.get("logger") or {}  # logger=[] leaves no key
    settings = {str(key): value for key, value in container.items() if key != "folder"}
    return folders.portable(settings, str(folder))


def start(plan: Plan) -> int:
    """Start the ranks on this machine and watch them; the exit status of the first that failed.

    Raises:
        UserError: the folder is taken or locked.
    """
    ranks = local_ranks(plan.settings["trainer"])
    return _own(plan, lambda: supervisor.supervise(_command(plan), plan.folder, ranks))


def _own(plan: Plan, run: Callable[[], int], rank: int | None = None) -> int:
    """Hold the folder while `run` works in it, and report how that ended; `rank` as of `ending.conclude`."""
    with ownership.lock(plan.folder):
        if plan.continues and not (plan.folder / folders.RESULT).exists():
            print(f"run {plan.folder.name} failed: {result_file.KILLED}; {_from(plan)}", file=sys.stderr, flush=True)
        starting.prepare(plan.folder, plan.settings, plan.continues)
        return ending.conclude(plan.folder, run(), rank)


def _from(plan: Plan) -> str:
    return f"continuing from {plan.checkpoint}" if plan.checkpoint else "starting again, without a checkpoint"


def _command(plan: Plan) -> list[str]:
    checkpoint = [str(plan.checkpoint)] if plan.checkpoint else []
    return [sys.executable, "-m", "alexnet_lab.launch.rank", str(plan.folder), *checkpoint]


def join(plan: Plan) -> int:
    """Be one rank of those that torchrun or srun has started; rank 0 owns the folder."""
    of_torchrun = "TORCHELASTIC_RUN_ID" in os.environ
    rank = int(os.environ["RANK"]) if of_torchrun else slurm.rank()
    run = _rank_of_torchrun if of_torchrun else _task_of_step
    if rank == 0:
        return _own(plan, lambda: run(plan, rank), rank)
    return ending.conclude(plan.folder, run(plan, rank), rank)


def _rank_of_torchrun(plan: Plan, rank: int) -> int:
    """Be the rank itself: torchrun supervises."""
    from alexnet_lab.launch.rank import run_rank

    if rank == 0:
        with ending.watch_for_refusals(plan.folder):
            return run_rank(plan.folder, plan.settings, plan.checkpoint)
    deadline = time.monotonic() + CLAIM_SECONDS
    while not starting.has_prepared(plan.folder):
        if time.monotonic() > deadline:
            raise UserError(f"rank {rank} waited {CLAIM_SECONDS:.0f} s for rank 0 to start the run in {plan.folder}")
        time.sleep(0.1)
    return run_rank(plan.folder, plan.settings, plan.checkpoint)


def _task_of_step(plan: Plan, rank: int) -> int:
    """Supervise the one rank that this task of `srun` stands for."""
    variables = slurm.await_call(plan.folder) if rank else slurm.call_ranks(plan.folder)
    return supervisor.supervise(_command(plan), plan.folder, joined=variables)


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


def objective(folder: Path) -> float | None:
    """The best val/top1 of the run in `folder`, as it is recorded."""
    return read_run(folder).figures.get("best_val/top1")
