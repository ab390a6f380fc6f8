"""From a composed configuration to a plan: the folder, the settings, the checkpoint.

Imports neither torch nor lightning, so that errors in folders and in resuming are reported at once.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from alexnet_lab import distributed
from alexnet_lab.command_line import command, from_here, override
from alexnet_lab.config.arguments import folder_flag, given, make_defaults_absolute
from alexnet_lab.config.keys import check_choices
from alexnet_lab.config.other_class import what_is_left_out, with_own_options
from alexnet_lab.errors import UserError
from alexnet_lab.launch import environment, naming, resume, slurm
from alexnet_lab.runs import folders
from alexnet_lab.runs.result_file import ENDED_WELL
from alexnet_lab.runs.run import read_run


@dataclass(frozen=True)
class Plan:
    """The settings of a run, whether its folder contains it already, and the checkpoint from which it continues."""

    folder: Path
    settings: dict[str, Any]
    continues: bool = False
    checkpoint: Path | None = None


def print_finished(folder: Path) -> None:
    """Print that the run has finished; if other settings were requested, also the command that applies them."""
    run = read_run(folder)
    how = "was pruned" if run.status == "pruned" else "has finished already"
    print(f"run {folder.name} {how}; its results are in {folder}")
    overrides, recorded = list(HydraConfig.get().overrides.task), dict(run.config)
    if resume.continued(recorded, overrides, str(folder)) != recorded:
        new = [text for text in overrides if not text.startswith(("run=", "+run=", "resume="))]
        words = [*folder_flag(given), override("resume", from_here(folder)), *new]
        print(f"to continue it with other settings: {command('train', *words)}")


def started_from_outside() -> bool:
    """Whether torchrun or srun has started this process as one rank of several."""
    return environment.of_torchrun() is not None or slurm.here().in_step


def plan(config: DictConfig, folder: Path) -> Plan | None:
    """Make the plan of a run; None if `resume=auto` and the run has finished.

    Raises:
        UserError: the settings are those of another run, or there is nothing to continue.
    """
    overrides = list(HydraConfig.get().overrides.task)
    if config.resume is None and slurm.here().restarted:
        config.resume = "auto"
    check_choices(overrides, "train")
    _check_tune(config)
    _check_resume(config, overrides, folder)
    settings = _resolved(config, folder, overrides)
    if config.resume is None or not (folder / folders.CONFIG).exists():
        return Plan(folder, settings)
    run = read_run(folder)
    run.check_readable()
    settings = resume.continued(dict(run.config), overrides, str(folder))
    finished = run.status in ENDED_WELL
    if config.resume == "auto" and finished:
        return None
    given = Path(str(config.resume))
    checkpoint = given.resolve() if given.suffix == ".ckpt" else folder / folders.LAST
    if finished and not checkpoint.exists():
        raise UserError(f"resume={config.resume}: the run has finished, and there is no {checkpoint} to continue from")
    return Plan(folder, settings, continues=True, checkpoint=checkpoint if checkpoint.exists() else None)


def _check_tune(config: DictConfig) -> None:
    if not config.get("tune"):
        return
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        raise UserError("tune=lr is one range test, not a sweep: start it once for each network")
    if config.resume not in (None, "auto"):
        raise UserError(f"resume={config.resume}: a range test starts from new weights; omit resume, or tune=lr")


def _check_resume(config: DictConfig, overrides: list[str], folder: Path) -> None:
    """Refuse a `resume` that names no run, or two."""
    named = any(text.startswith(("run=", "+run=")) for text in overrides)
    if config.resume == "auto":
        explicit = any(text.startswith("hydra.") and ".dir=" in text for text in HydraConfig.get().overrides.hydra)
        if not (named or explicit or started_from_outside() or slurm.here().job):
            raise UserError("resume=auto needs run=NAME, to find the run again")
    elif config.resume is not None and HydraConfig.get().mode == RunMode.MULTIRUN:
        raise UserError(f"resume={config.resume}: a sweep takes resume=auto with run=NAME")
    elif config.resume is not None:
        # With an explicit hydra.run.dir, the folder was not derived from `resume`.
        of_resume = naming.run_folder(str(folder.parent), folder.name, str(config.resume))
        if Path(of_resume).resolve() != folder.resolve():
            raise UserError(f"resume={config.resume} is another run than that of hydra.run.dir={folder}")
        if named and config.run != folder.name:
            raise UserError(f"resume={config.resume} is another run than run={config.run}")


def _resolved(config: DictConfig, folder: Path, overrides: list[str]) -> dict[str, Any]:
    config.folder = str(folder)
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        config.sweep_name = folder.parent.name
    make_defaults_absolute(config)
    container = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(container, dict)
    container |= {"overrides": overrides, "resume": None}
    container["logger"] = container.get("logger") or {}  # with logger=[] there is no key
    settings = {str(key): value for key, value in container.items() if key != "folder"}
    own = with_own_options(settings, overrides)
    if distributed.rank() == 0 and (line := what_is_left_out(settings, own)):
        print(line)
    return folders.portable(own, str(folder))


def objective(folder: Path) -> float | None:
    """The recorded best val/top1 of the run in `folder`."""
    return read_run(folder).figures.get("best_val/top1")
