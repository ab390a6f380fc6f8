"""`hydra/sweeper=jobs`: a list of named jobs, each a list of overrides, for what is no product of values.

Hydra imports this module at each start, so it imports nothing but Hydra.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


@dataclass
class JobsSweeperConfig:
    """The settings of the sweeper."""

    _target_: str = "hydra_plugins.alexnet_lab_launcher.sweeper.JobsSweeper"
    jobs: dict[str, list[str]] = field(default_factory=dict)
    """By name, what each job changes."""


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


def _key(override: str) -> Any:
    return override.partition("=")[0].lstrip("+~")
