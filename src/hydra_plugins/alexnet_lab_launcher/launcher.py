"""`hydra/launcher=processes`: every job of a sweep is a process of its own, see `alexnet_lab.launch.sweep`; and
`hydra/launcher=none`, of the commands that do not sweep.

Hydra imports this module at each start, so at its top it imports nothing but Hydra.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, filter_overrides, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

if TYPE_CHECKING:
    from alexnet_lab.launch.sweep_job import Job

BASIC_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


@dataclass
class ProcessLauncherConfig:
    """Jobs on this machine, each in a process of its own."""

    _target_: str = "hydra_plugins.alexnet_lab_launcher.launcher.ProcessLauncher"
    jobs_at_once: int = 1
    """Jobs that run at the same time; each gets its share of the cores, and its own GPUs."""
    devices_per_job: int | None = None
    """GPUs of each job; by default the job's own trainer.devices."""
    job_timeout: float | None = None
    """Seconds after which a job is stopped and counted as failed; by default there is no limit."""
    fail_fast: bool = False
    """true: the first failed job ends the sweep."""


@dataclass
class NoLauncherConfig:
    """It has no settings."""

    _target_: str = "hydra_plugins.alexnet_lab_launcher.launcher.NoLauncher"


for name, node in (("processes", ProcessLauncherConfig), ("none", NoLauncherConfig)):
    ConfigStore.instance().store(group="hydra/launcher", name=name, node=node, provider="alexnet_lab")


class Ended(JobReturn):
    """How a job ended; unlike Hydra's, it prints nothing when a sweeper asks a failed one for its value."""

    @property
    def return_value(self) -> Any:
        """The job's objective.

        Raises:
            RunFailed: the job did not finish.
        """
        if self.status == JobStatus.FAILED:
            raise self._return_value
        return self._return_value

    @return_value.setter
    def return_value(self, value: Any) -> None:
        self._return_value = value


class ProcessLauncher(Launcher):
    """Composes the jobs, all of them before the first one starts, and leaves the rest to `Sweep`."""

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._shared: Sequence[str] | None = None
        self._prunes: Callable[[int, Mapping[int, float]], bool] | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take the sweep's folder; `UserError` when another launcher works in it, or a batch could end the sweep."""
        from alexnet_lab.errors import UserError
        from alexnet_lab.launch import snapshot
        from alexnet_lab.launch.sweep import Sweep

        sweeper = config.hydra.sweeper
        if sweeper.get("_target_") == BASIC_SWEEPER and sweeper.get("max_batch_size") is not None:
            raise UserError(  # Hydra's own sweeper ends at the first batch with a failed job
                "hydra.sweeper.max_batch_size is not for this launcher: "
                "hydra.launcher.jobs_at_once=N says how many jobs run at once"
            )
        self._config = config
        self._sweep = Sweep(Path(config.hydra.sweep.dir).absolute(), **self._options)
        self._loader = _loader_of(hydra_context, snapshot.conf(self._sweep.code))

    def take_groups(self, shared: Sequence[str], prunes: Callable[[int, Mapping[int, float]], bool] | None) -> None:
        """For a search, which launches groups of trials that have the overrides `shared` in common.

        `prunes` answers whether the trial at this place of its group ends now, given its val/top1 by epoch.
        """
        self._shared, self._prunes = shared, prunes

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run one job per list of overrides; those that failed are returned as such, with their reason."""
        from alexnet_lab.launch.sweep_job import Group

        setup_globals()
        composed = [self._compose(list(overrides), initial_job_idx + n) for n, overrides in enumerate(job_overrides)]
        returns, jobs = zip(*composed, strict=True)
        prunes = self._prunes
        if self._shared is None:
            self._sweep.run(jobs)
        else:
            group = Group(initial_job_idx, self._shared, prunes and (lambda job, seen: prunes(jobs.index(job), seen)))
            self._sweep.run(jobs, group)
        for returned, job in zip(returns, jobs, strict=True):
            returned.status = JobStatus.FAILED if job.failure else JobStatus.COMPLETED
            returned.return_value = job.failure or job.objective
        return returns

    def _compose(self, overrides: list[str], number: int) -> "tuple[JobReturn, Job]":
        from alexnet_lab.launch.planning import plan

        config = self._loader.load_sweep_config(self._config, overrides)
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        outer = HydraConfig.instance().cfg
        HydraConfig.instance().set_config(config)
        try:
            folder = Path(config.hydra.sweep.dir, config.hydra.sweep.subdir).absolute()
            task = copy.deepcopy(config)
            with open_dict(task):
                del task["hydra"]
            returned = Ended(
                overrides=list(config.hydra.overrides.task),
                cfg=task,
                hydra_cfg=OmegaConf.masked_copy(config, "hydra"),
                working_dir=str(folder),
                task_name=config.hydra.job.name,
            )
            job = self._sweep.job(folder, filter_overrides(overrides), lambda: plan(task, folder))
            return returned, job
        finally:
            HydraConfig.instance().cfg = outer


class NoLauncher(Launcher):
    """Refuses to sweep, before anything is written."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Raises UserError."""
        from alexnet_lab.errors import UserError

        name = config.hydra.job.name
        raise UserError(f"{name} cannot sweep (-m, --multirun): run it once for each value")

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        raise AssertionError("setup refuses every sweep")


def _loader_of(context: HydraContext, conf: Path) -> Any:
    """A loader that reads `conf` in place of the project's own folder, which may change while the sweep runs."""
    from hydra._internal.config_loader_impl import ConfigLoaderImpl

    search_path = copy.deepcopy(context.config_loader.get_search_path())
    for element in search_path.get_path():
        if element.provider == "main":
            element.path = f"file://{conf}"
    return ConfigLoaderImpl(search_path)
