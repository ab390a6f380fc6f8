"""The names and folders of runs and of a sweep's jobs; most of these functions are OmegaConf resolvers.

Imports nothing heavy: it runs before Hydra makes a folder.
"""

import hashlib
import os
import re
from pathlib import Path
from typing import Any

from alexnet_lab import machine
from alexnet_lab.config.run_names import check_name
from alexnet_lab.errors import UserError
from alexnet_lab.launch import slurm
from alexnet_lab.runs.folders import CONFIG

LONGEST_NAME = 150


def run_name(now: str) -> str:
    """The default name of a run: date and time, or the job's number if Slurm or torchrun started the ranks.

    Ranks of `srun` and `torchrun` compose separately and must agree on one folder.
    """
    environment = os.environ
    if of_slurm := slurm.here().run_name:
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

    If the name was cut or a character replaced, it ends with a hash of the overrides.
    """
    overrides = overrides or "job"
    name = re.sub(r"[^\w.+=,-]", "_", overrides).lstrip(".")[:LONGEST_NAME]
    return name if name == overrides else f"{name}-{hashlib.sha256(overrides.encode()).hexdigest()[:8]}"


def run_title(model: str, data: str, optimizer: str, seed: int, sweep: str | None, folder: str | None) -> str:
    """The display name of a run, `lenet-fashion_mnist-sgd-s0`; for a job of a sweep with its other overrides.

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
    """The first value that is not None; None if all are."""
    return next((value for value in values if value is not None), None)
