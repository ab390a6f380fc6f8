"""`hydra/sweeper=jobs`: a list of named jobs, each a list of overrides, for what is no product of values; and
`hydra/sweeper=optuna`, see `alexnet_lab.launch.search`.

Hydra imports this module at each start, so it imports nothing but Hydra.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


@dataclass
class JobsSweeperConfig:
    """Named jobs, each a list of overrides; values on the command line multiply them."""

    _target_: str = "hydra_plugins.alexnet_lab_launcher.sweeper.JobsSweeper"
    jobs: dict[str, list[str]] = field(default_factory=dict)
    """The overrides of each job, by its name."""


ConfigStore.instance().store(group="hydra/sweeper", name="jobs", node=JobsSweeperConfig, provider="alexnet_lab")


class JobsSweeper(Sweeper):
    """Runs each of `jobs` with every combination of the values that the command line gives.

    A job's own override goes before one of the same key on the command line. Its folder is `<name>`, followed by what
    the command line changes: `no_lrn,seed=1`.
    """

    def __init__(self, jobs: dict[str, list[str]]) -> None:
        self._jobs = jobs

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._config = config
        self._loader = hydra_context.config_loader
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Sequence[JobReturn]:
        """Launch all jobs at once and return how each ended; raise as the first that failed did."""
        from alexnet_lab.errors import UserError
        from alexnet_lab.launch.naming import job_name

        if not self._jobs:
            raise UserError("hydra/sweeper=jobs needs +hydra.sweeper.jobs={NAME: [OVERRIDE, ...], ...}")
        OmegaConf.save(self._config, Path(self._config.hydra.sweep.dir, "multirun.yaml"))
        parser = OverridesParser.create(config_loader=self._loader)
        (combinations,) = BasicSweeper.split_arguments(parser.parse_overrides(arguments), None)
        unnamed = self._config.hydra.job.config.override_dirname.exclude_keys
        batch = []
        for combination in combinations:
            changes = sorted(text for text in combination if _key(text) not in unnamed)
            for name, own in self._jobs.items():
                taken = {_key(text) for text in own}
                kept = [text for text in combination if _key(text) not in taken]
                folder = job_name(",".join([name, *(text for text in changes if _key(text) not in taken)]))
                batch.append([*kept, *own, f"hydra.sweep.subdir='{folder}'"])
        returns = self._launcher.launch(batch, initial_job_idx=0)
        for returned in returns:
            _ = returned.return_value  # raises where there is none
        return returns


class WithoutOldSweeper(SearchPathPlugin):
    """Removes the configurations of hydra-optuna-sweeper where it is still installed: ours have the same names."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called when all plugins are loaded; the search path stays as it is."""
        _remove(ConfigStore.instance().repo.get("hydra", {}).get("sweeper", {}), "optuna_sweeper")


def _remove(group: dict[str, Any], provider: str) -> None:
    for name, node in list(group.items()):
        if isinstance(node, dict):
            _remove(node, provider)
        elif node.provider == provider:
            del group[name]


class OptunaSweeper(Sweeper):
    """Searches `params`, and what the command line varies, for the best val/top1.

    The settings are those of `conf/hydra/sweeper/optuna.yaml`.
    """

    def __init__(self, **settings: Any) -> None:
        """Take any settings; `setup` checks them."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Check the settings and set the launcher up; `UserError` when one is wrong or Optuna is missing."""
        from alexnet_lab.launch.search import checked

        self._config = config
        self._settings = checked(OmegaConf.to_container(config.hydra.sweeper, resolve=True))
        self._loader = hydra_context.config_loader
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Sequence[JobReturn]:
        """Run all trials and return how each ended; raise as the first that failed did."""
        from alexnet_lab.errors import UserError
        from alexnet_lab.launch import slurm
        from alexnet_lab.launch.search import Search
        from alexnet_lab.launch.search_space import space_of
        from hydra_plugins.alexnet_lab_launcher.launcher import ProcessLauncher

        settings, launcher = self._settings, self._launcher
        ours = launcher if isinstance(launcher, ProcessLauncher) else None
        if settings.pruner and not ours:
            raise UserError("hydra.sweeper.pruner works with hydra/launcher=processes only")
        params = [f"{key}={'null' if value is None else value}" for key, value in (settings.params or {}).items()]
        space = space_of([*params, *arguments], self._loader)
        for example in space.examples(lambda key: bool(self._loader.get_group_options(key))):
            self._compose(example)
        folder = Path(self._config.hydra.sweep.dir).absolute()
        at_once = settings.n_jobs or self._config.hydra.launcher.get("jobs_at_once", 1)
        search = Search(settings, space, folder, at_once, self._config.resume == "auto" or slurm.here().restarted)
        OmegaConf.save(self._config, folder / "multirun.yaml")
        if ours:
            ours.take_groups(space.fixed, search.prunes if settings.pruner else None)
        return search.run(launcher.launch, self._compose)

    def _compose(self, overrides: list[str]) -> None:
        """Raise as Hydra does where a trial's configuration does not exist."""
        self._loader.load_sweep_config(self._config, overrides)


def _key(override: str) -> Any:
    return override.partition("=")[0].lstrip("+~")
