"""Where a run lives: names, folders, the claim of a new folder, and the lock against a second writer.

Imports nothing heavy: it runs before Hydra makes a folder. `run_name` and `run_folder` are OmegaConf resolvers.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from yaml import YAMLError

from alexnet_lab import files, locks, machine
from alexnet_lab.commands import slurm
from alexnet_lab.errors import UserError
from alexnet_lab.tracking import record

ROOT = Path(__file__).resolve().parents[3]
CHECKPOINTS = "checkpoints"
LAST = f"{CHECKPOINTS}/last.ckpt"
BEST = f"{CHECKPOINTS}/best.ckpt"
CONFIG = "config.yaml"
RESULT = "result.json"
METRICS = "metrics.csv"
LEFT_OUT = "left_out.json"
"""File and reason of each image that could not be read when the run began."""
JOB_LOG = "job.log"
LOCK = record.LOCK
LONGEST_NAME = 150
LONGEST_RUN = 200
"""Bytes; file systems allow 255, and W&B adds to it."""


def run_name(now: str) -> str:
    """The default name of a run: date and time, or the job's identity where something else started the ranks.

    Ranks started by `srun` or `torchrun` compose on their own and must agree on one folder.
    """
    environment = os.environ
    if of_slurm := slurm.name():
        return of_slurm
    if "TORCHELASTIC_RUN_ID" in environment:
        identity = environment["TORCHELASTIC_RUN_ID"]
        if identity != "none":
            return f"torchrun-{identity}"
        if environment.get("GROUP_WORLD_SIZE", "1") != "1":
            raise UserError("torchrun over several nodes needs run=NAME, so that all nodes agree on one folder")
        # One node: the ranks share their parent, torchrun's agent.
        return "-".join(filter(None, ["torchrun", machine.start_of(os.getppid()), str(os.getppid())]))
    return now


def check_name(run: Any) -> None:
    """Raises UserError: `run` is not a name of a run."""
    if not isinstance(run, str) or not re.fullmatch(r"[\w.+=,-]+", run) or run.startswith("."):
        shown = "null" if run is None else run
        raise UserError(f"run={shown}: a run's name is made of letters, digits and any of . _ - + = ,")
    if len(os.fsencode(run)) > LONGEST_RUN:
        raise UserError(f"run={run[:40]}...: a run's name has at most {LONGEST_RUN} bytes")


def run_folder(parent: str, run: Any, resume: str | None) -> str:
    """The folder of a run: below `parent` by its name, or the one that `resume=FOLDER|CHECKPOINT` names."""
    if resume is None or resume == "auto":
        check_name(run)
        return str(Path(parent, run))
    folder = _folder_of(Path(resume))
    if not (folder / CONFIG).is_file():
        raise UserError(
            f"resume={resume}: no run there (no {CONFIG} in {folder}); give a run's folder, or auto with run=NAME"
        )
    return str(folder)


def _folder_of(path: Path) -> Path:
    if path.suffix == ".ckpt":
        if not path.is_file():
            raise UserError(f"resume={path}: no such checkpoint")
        return path.resolve().parent.parent
    return path


def job_name(overrides: str) -> str:
    """A sweep job's folder, named after its overrides, so that a job keeps its folder when the sweep grows.

    A name that does not tell all of them, as it is cut or a character was replaced, ends with their hash.
    """
    overrides = overrides or "job"
    name = re.sub(r"[^\w.+=,-]", "_", overrides).lstrip(".")[:LONGEST_NAME]
    return name if name == overrides else f"{name}-{hashlib.sha256(overrides.encode()).hexdigest()[:8]}"


def run_title(model: str, data: str, optimizer: str, seed: int, sweep: str | None, folder: str | None) -> str:
    """How a run is called among many, `lenet-fashion_mnist-sgd-s0`; a sweep's job tells the rest of its name, too.

    `model` and `optimizer` are `_target_`s.
    """
    title = f"{short_name(model)}-{data}-{short_name(optimizer)}-s{seed}"
    job = Path(folder).name.split(",") if sweep and folder else []
    rest = ",".join(part for part in job if part.partition("=")[0] not in ("model", "data", "optimizer", "seed"))
    return f"{title} {rest}" if rest else title


def short_name(target: str) -> str:
    """`torch.optim.SGD` -> `sgd`."""
    return target.rpartition(".")[2].lower()


def first(*values: Any) -> Any:
    """The first of the values that is not None; None when all are."""
    return next((value for value in values if value is not None), None)


def claim(folder: Path, config: dict[str, Any]) -> None:
    """Write `config.yaml` into a folder that holds no run yet; the first writer wins.

    Raises:
        UserError: a run lives there already, or nothing can be written there.
    """
    with writing(folder):
        try:
            files.create(folder / CONFIG, as_yaml(config))
        except FileExistsError:
            raise taken(folder) from None


def taken(folder: Path) -> UserError:
    """What to raise where a new run is to begin and another one lives."""
    return UserError(
        f"run {folder.name} exists already in {folder.parent}\nresume=auto continues it; another run=NAME starts anew"
    )


def rewrite(folder: Path, config: dict[str, Any]) -> None:
    """Replace `config.yaml` at once, as when a run is continued by another trainer."""
    with writing(folder):
        files.write(folder / CONFIG, as_yaml(config))


def discard(folder: Path) -> None:
    """Remove a folder in which nothing was trained, so that its name is free again."""
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Write what begins a run or a sweep in `folder`.

    Raises:
        UserError: the file system refuses it, as when it is read-only or full.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written: {files.reason_of(error)}\n"
            "to put runs elsewhere: hydra.run.dir=FOLDER (a sweep: hydra.sweep.dir=FOLDER), or make logs a link to "
            "another disk"
        ) from error


def lock(folder: Path) -> AbstractContextManager[Any]:
    """Hold the folder against other writers until the returned lock is closed or the process ends.

    Raises:
        UserError: another process writes there, or nothing can be written there.
    """
    with writing(folder):
        held = locks.lock(folder / LOCK, f"run {folder.name}")
    for place in (folder, folder / CHECKPOINTS):
        files.tidy(place)
    return held


def read_config(folder: Path) -> dict[str, Any]:
    """The recorded configuration of a run, as plain containers."""
    try:
        container = OmegaConf.to_container(OmegaConf.load(folder / CONFIG))
    except (OSError, YAMLError) as error:
        raise UserError(f"{folder / CONFIG} cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(container, dict):
        raise UserError(f"{folder / CONFIG} is damaged: it is not the configuration of a run")
    return {str(key): value for key, value in container.items()}


def as_yaml(config: dict[str, Any]) -> str:
    """As `config.yaml` has it."""
    return OmegaConf.to_yaml(OmegaConf.create(config))
