"""From a composed configuration to running ranks: the folder, the recorded configuration, the processes.

Imports neither torch nor lightning, so that whatever is wrong with folders and resuming is said at once.
"""

import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from alexnet_lab.commands import folders, resume, slots, slurm, supervisor
from alexnet_lab.errors import USER_ERROR, UserError
from alexnet_lab.tracking import record

CLAIM_SECONDS = 60.0
LIST_OF_CHOICES = re.compile(r"(model|data|optimizer|scheduler|trainer|checkpoints)=\[(.*)\]")


@dataclass(frozen=True)
class Plan:
    """What is to be run: the settings, whether the folder holds the run already, and where it goes on from."""

    folder: Path
    settings: dict[str, Any]
    continues: bool = False
    checkpoint: Path | None = None


def launch(config: DictConfig) -> float | None:
    """Start or continue the run that `config` describes and wait for its end.

    Returns the best val/top1, for a sweeper. Ends the program with the ranks' status when they failed.

    Raises:
        UserError: the folder is taken or locked, or the continued run was another one.
    """
    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        todo = plan(config, folder)
        if todo is None:
            print(f"run {folder.name} has finished already; its results are in {folder}")
            return objective(folder)
        status = _join(todo) if started_from_outside() else start(todo)
    except (UserError, OmegaConfBaseException):
        with suppress(OSError):
            folder.rmdir()  # Hydra made it; it goes when nothing is in it
        raise
    if status:
        sys.exit(status if status > 0 else 128 - status)
    return objective(folder)


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
    _check_choices(overrides)
    _check_resume(config, overrides, folder)
    settings = _resolved(config, folder, overrides)
    if config.resume is None or not (folder / folders.CONFIG).exists():
        return Plan(folder, settings)
    settings = resume.continued(folders.read_config(folder), overrides, str(folder))
    if config.resume == "auto" and (record.read_result(folder / folders.RESULT) or {}).get("status") == "finished":
        return None
    given = Path(str(config.resume))
    checkpoint = given.resolve() if given.suffix == ".ckpt" else folder / folders.LAST
    if config.resume != "auto" and not checkpoint.exists():
        raise UserError(f"resume={config.resume}: there is no {checkpoint} to go on from")
    return Plan(folder, settings, continues=True, checkpoint=checkpoint if checkpoint.exists() else None)


def _check_choices(overrides: list[str]) -> None:
    """Refuse model=[lenet,caffenet], whose files Hydra merges into one that is neither."""
    for override in overrides:
        if found := LIST_OF_CHOICES.fullmatch(override):
            group, choices = found.groups()
            raise UserError(f"{override}: one {group} at a time; a sweep over them is -m {group}={choices}")


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
        of_resume = folders.run_folder(str(folder.parent), folder.name, str(config.resume))
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
    return {str(key): value for key, value in container.items()}


def start(plan: Plan) -> int:
    """Start the ranks on this machine and watch them; the exit status of the first that failed.

    Raises:
        UserError: the folder is taken or locked.
    """
    ranks = local_ranks(plan.settings["trainer"])
    return _own(plan, lambda: supervisor.supervise(_command(plan), plan.folder, ranks))


def _command(plan: Plan) -> list[str]:
    checkpoint = [str(plan.checkpoint)] if plan.checkpoint else []
    return [sys.executable, "-m", "alexnet_lab.commands.rank", str(plan.folder), *checkpoint]


def _own(plan: Plan, run: Callable[[], int]) -> int:
    """Hold the folder while `run` works in it, and leave no trace of it when a user's error ends it."""
    was_empty = not any(plan.folder.iterdir())
    with folders.lock(plan.folder):
        before = folders.read_config(plan.folder) if plan.continues else None
        result = record.read_result(plan.folder / folders.RESULT)
        try:
            _record(plan)
        except UserError as error:
            if was_empty and isinstance(error.__cause__, OSError):
                folders.discard(plan.folder)
            raise
        status = run()
        if status == USER_ERROR:
            _undo(plan.folder, was_empty, before, result)
        return status


def _undo(folder: Path, was_empty: bool, config: dict[str, Any] | None, result: dict[str, Any] | None) -> None:
    """Nothing was trained: leave the run as it was, or its name free."""
    if config:
        folders.rewrite(folder, config)
        if result:
            record.write_result(folder / folders.RESULT, **result)
    elif was_empty:
        folders.discard(folder)
    else:  # somebody's folder, given as hydra.run.dir
        (folder / folders.CONFIG).unlink()


def _join(plan: Plan) -> int:
    """Be one rank of those that torchrun or srun has started; rank 0 owns the folder."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        rank, status = int(os.environ["RANK"]), _join_torchrun(plan)
    else:
        rank, status = slurm.rank(), _join_step(plan)
    if rank and status == USER_ERROR:
        # Rank 0 has it to tell and its folder to clear; the first rank that ends has all others killed.
        time.sleep(supervisor.GRACE_SECONDS)
    return status


def _join_torchrun(plan: Plan) -> int:
    """Be the rank itself: torchrun supervises."""
    from alexnet_lab.commands.rank import run_rank

    rank = int(os.environ["RANK"])
    if rank == 0:
        return _own(plan, lambda: run_rank(plan.folder, plan.settings, plan.checkpoint))
    deadline = time.monotonic() + CLAIM_SECONDS
    while not (plan.folder / folders.CONFIG).exists():
        if time.monotonic() > deadline:
            raise UserError(f"rank {rank} waited {CLAIM_SECONDS:.0f} s for rank 0 to start the run in {plan.folder}")
        time.sleep(0.1)
    return run_rank(plan.folder, plan.settings, plan.checkpoint)


def _join_step(plan: Plan) -> int:
    """Supervise the one rank that this task of `srun` stands for."""

    def supervise(variables: Mapping[str, str]) -> int:
        return supervisor.supervise(_command(plan), plan.folder, joined=variables)

    if slurm.rank() == 0:
        return _own(plan, lambda: supervise(slurm.call_ranks(plan.folder)))
    return supervise(slurm.await_call(plan.folder))


def _record(plan: Plan) -> None:
    if plan.continues:
        folders.rewrite(plan.folder, plan.settings)
        (plan.folder / folders.RESULT).unlink(missing_ok=True)
    else:
        folders.claim(plan.folder, plan.settings)


def local_ranks(trainer: Mapping[str, Any]) -> int:
    """How many processes of this machine the trainer's `devices` asks for."""
    devices = trainer.get("devices", 1)
    if isinstance(devices, list):
        return len(devices)
    if isinstance(devices, str) and "," in devices:
        return len([part for part in devices.split(",") if part.strip()])
    if devices in ("auto", -1, "-1"):
        return _usable_gpus(trainer)
    try:
        count = int(devices)
    except ValueError:
        count = 0
    if count < 1:
        raise UserError(f"trainer.devices={devices}: a number of devices, a list of their indices, or auto")
    return count


def _usable_gpus(trainer: Mapping[str, Any]) -> int:
    count = len(slots.usable_gpus(trainer))
    if count == 0 and trainer.get("accelerator") == "auto" and sys.platform == "linux":
        print("trainer.devices=auto: there is no GPU here, so one process trains on the CPU", file=sys.stderr)
    return max(1, count)


def objective(folder: Path) -> float | None:
    """The best val/top1 of the run in `folder`, as it is recorded."""
    result = record.read_result(folder / folders.RESULT) or {}
    best: float | None = result.get("best", {}).get("val/top1")
    return best
