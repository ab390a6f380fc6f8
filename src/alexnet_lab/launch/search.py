"""`hydra/sweeper=optuna`: a search on Optuna's ask-and-tell interface, which can be killed at any moment.

Trials are asked in groups and told in the order of their numbers when the whole group has ended. What a sampler
proposes follows from the seed, the trial's number and the trials before it, so a search that is started again proposes
the same. A trial is written to the storage whole, with its parameters; from then on it keeps its number and its folder.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from hydra.core.utils import JobReturn
from pydantic import BaseModel, ConfigDict, Field

from alexnet_lab import command_line
from alexnet_lab.config import arguments
from alexnet_lab.config.schema import validate
from alexnet_lab.errors import RunFailed, RunInterrupted, UserError
from alexnet_lab.launch import search_report, search_study
from alexnet_lab.launch.search_space import Space
from alexnet_lab.launch.sweep_job import top1_by_epoch
from alexnet_lab.runs import folders, result_file

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

SWEEP, GROUP = "sweep", "group"
"""Attributes of a trial: the name of the sweep that runs it, and the number of the group that it was asked in."""

HYDRA_KEYS = ("_target_", "_recursive_")

Launch = Callable[[Sequence[Sequence[str]], int], Sequence[JobReturn]]


class Settings(BaseModel):
    """The node `hydra.sweeper`, see `conf/hydra/sweeper/optuna.yaml`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    n_trials: Annotated[int, Field(ge=1)]
    n_jobs: Annotated[int, Field(ge=1)] | None
    direction: search_study.Direction
    storage: str | None
    study_name: str | int | None
    max_failure_rate: Annotated[float, Field(ge=0, le=1)]
    sampler: Any
    pruner: Any
    params: dict[str, Any] | None


def checked(node: Any) -> Settings:
    """The settings in the node `hydra.sweeper`.

    Raises:
        UserError: a key or a value is wrong, or Optuna is missing.
    """
    settings = {key: value for key, value in node.items() if key not in HYDRA_KEYS}
    validate(Settings, settings, "hydra.sweeper")
    search_study.require_optuna()
    return Settings.model_validate(settings)


class Search:
    """The trials of one search, whose jobs are below `folder`; `at_once` of them are proposed together.

    Raises:
        UserError: the storage, the sampler or the pruner is wrong, or the search has begun before and `resumes` is
            false.
    """

    def __init__(self, settings: Settings, space: Space, folder: Path, at_once: int, resumes: bool) -> None:
        self._settings, self._space, self._folder, self._at_once = settings, space, folder, at_once
        self.trials = min(settings.n_trials, search_study.most_trials(settings.sampler, space))
        search_study.try_sampler(settings.sampler, settings.direction, space)
        if settings.pruner:
            search_study.pruner_of(settings.pruner)
        name = str(settings.study_name or folder.name)
        self._study = search_study.open_study(settings.storage, name, settings.direction, folder)
        self._check_earlier_trials(name, resumes)
        self._group: list[FrozenTrial] = []
        self._pruning: search_study.Pruning | None = None
        self._failures: list[Exception] = []

    def _check_earlier_trials(self, name: str, resumes: bool) -> None:
        mine, run = self._mine(), self._folder.name
        if mine and not resumes:
            raise UserError(
                f"run {run} exists already in the study {name}\nresume=auto continues it; another run=NAME starts one"
            )
        before, now = mine[-1].distributions if mine else self._space.distributions, self._space.distributions
        for key in sorted(before.keys() | now.keys()):
            if before.get(key) != now.get(key):
                raise UserError(
                    f"run {run} has begun with other values to vary: {key} was {before.get(key, 'fixed')}, and is "
                    f"{now.get(key, 'fixed')}\nrepeat its command to continue it; another run=NAME starts a new search"
                )

    def run(self, launch: Launch, check: Callable[[list[str]], Any]) -> list[JobReturn]:
        """Ask, launch and tell until all trials have ended; `check` composes a trial before it is written down.

        Raises:
            RunInterrupted: a trial was interrupted; it continues when the search is started again.
            RunFailed: too many trials of a group failed, or, at the end, the first that failed.
        """
        returns: list[JobReturn] = []
        try:
            while self._next_group(check):
                overrides = [self._space.overrides(one.params) for one in self._group]
                ended = launch(overrides, self._group[0].number)
                self._tell(ended)
                returns.extend(ended)
        except (RunInterrupted, RunFailed) as error:
            self._show()
            if isinstance(error, RunInterrupted):
                print(f"continue the search with: {_again(self._folder)}", file=sys.stderr, flush=True)
            raise
        self._show()
        if self._failures:
            raise self._failures[0]
        return returns

    def _show(self) -> None:
        search_report.show(self._folder, self._study, self._mine(), self.trials)

    def prunes(self, place: int, values: Mapping[int, float]) -> bool:
        """Whether the trial at `place` in its group ends now; `values` are its val/top1 by epoch so far."""
        assert self._pruning is not None
        return self._pruning.decides(self._group[place].number, values)

    def _mine(self) -> "list[FrozenTrial]":
        """The trials of this sweep; searches in other folders may share the study."""
        trials = self._study.get_trials(deepcopy=False)
        return [one for one in trials if one.user_attrs.get(SWEEP) == self._folder.name]

    def _next_group(self, check: Callable[[list[str]], Any]) -> bool:
        """Find the trials that run next: those that a kill has left, and new ones. False at the end."""
        mine = self._mine()
        number = mine[-1].user_attrs[GROUP] if mine else 0
        group = [one for one in mine if one.user_attrs[GROUP] == number]
        if all(one.state.is_finished() for one in group):
            number, group = number + 1, []
        if not any(one.state.is_finished() for one in group):  # else all of it were asked
            for _ in range(min(self._at_once - len(group), self.trials - len(mine))):
                self._ask(number, check)
            group = [one for one in self._mine() if one.user_attrs[GROUP] == number]
        self._group = [one for one in group if not one.state.is_finished()]
        if self._group and self._settings.pruner:
            before = self._study.get_trials(deepcopy=False)[: group[0].number]
            self._pruning = search_study.Pruning(self._settings.pruner, self._study, before)
        return bool(self._group)

    def _ask(self, group: int, check: Callable[[list[str]], Any]) -> None:
        new = self._propose(self._study.get_trials(deepcopy=False))
        new.user_attrs = {SWEEP: self._folder.name, GROUP: group}
        check(self._space.overrides(new.params))
        self._study.add_trial(new)

    def _propose(self, trials: "Sequence[FrozenTrial]") -> "FrozenTrial":
        sampler = search_study.sampler_for(self._settings.sampler, len(trials), self._space)
        return search_study.propose(trials, sampler, self._settings.direction, self._space)

    def _tell(self, returns: Sequence[JobReturn]) -> None:
        """Tell how the group ended, in the order of the numbers; RunInterrupted where a trial is to be continued."""
        from optuna.trial import TrialState

        places = [_folder_of(one) for one in returns]
        statuses = [(result_file.read_result(place / folders.RESULT) or {}).get("status") for place in places]
        if "interrupted" in statuses:
            raise RunInterrupted
        failures: list[Exception] = []
        for trial, returned, place, status in zip(self._group, returns, places, statuses, strict=True):
            self._record_epochs(trial, place)
            if status == "pruned":
                self._study.tell(trial.number, state=TrialState.PRUNED)
                continue
            try:
                value = returned.return_value
            except Exception as error:  # whatever ended the job
                value = None
                failures.append(error)
            else:
                failures += [RunFailed(f"trial {trial.number} has no val/top1")] if value is None else []
            self._study.tell(trial.number, value, state=TrialState.FAIL if value is None else TrialState.COMPLETE)
        self._failures.extend(failures)
        if len(failures) > self._settings.max_failure_rate * len(returns):
            raise failures[0]

    def _record_epochs(self, trial: "FrozenTrial", place: Path) -> None:
        """Record in the study what the pruner saw."""
        if self._pruning is None:
            return
        values = top1_by_epoch(place)
        self._pruning.decides(trial.number, values)
        search_study.record(self._study, trial, values, self._pruning.rungs(trial.number))


def _folder_of(returned: JobReturn) -> Path:
    """The job's folder; Hydra's `working_dir` is the current one."""
    sweep = returned.hydra_cfg.hydra.sweep  # type: ignore[union-attr]
    return Path(sweep.dir, sweep.subdir).absolute()


def _again(folder: Path) -> str:
    """The command that continues the search in `folder`, as it can be pasted into a shell."""
    given = [text for text in arguments.given if not text.startswith("resume=")]
    is_named = any(text.startswith(("run=", "+run=", "hydra.sweep.dir=")) for text in given)
    name = [] if is_named else [command_line.override("run", folder.name)]
    return command_line.command("train", *given, *name, "resume=auto")
