"""Optuna's parts of a search: the storage with its study, the sampler of each trial, the pruner.

Optuna is an extra, so it is imported only where a search needs it.
"""

import copy
import inspect
import math
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from alexnet_lab.command_line import install
from alexnet_lab.config.advice import did_you_mean
from alexnet_lab.errors import UserError
from alexnet_lab.launch.search_space import Space

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

Direction = Literal["maximize", "minimize"]

OLDEST = 4
SAMPLERS = ("tpe", "random", "grid", "cmaes", "nsgaii", "nsgaiii", "gp", "brute_force")
PRUNERS = ("median", "percentile", "threshold", "successive_halving", "hyperband")
JOURNAL = "journal:"
RUNGS = "rungs"
"""Attribute of a trial: what the pruner has noted of it."""


def require_optuna() -> None:
    """Raises UserError where Optuna is missing or too old."""
    try:
        import optuna
    except ImportError as error:
        raise UserError(f"a search needs Optuna: {install('optuna')}") from error
    if int(optuna.__version__.partition(".")[0]) < OLDEST:
        raise UserError(
            f"a search needs Optuna {OLDEST} or newer, and {optuna.__version__} is installed: {install('optuna')}"
        )
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # a line per study and per trial
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def open_study(storage: str | None, name: str, direction: Direction, folder: Path) -> "optuna.Study":
    """The study `name` in the storage, new or as an earlier search left it; by default a journal in `folder`.

    Raises:
        UserError: the storage cannot be opened, or the study has another direction.
    """
    import optuna

    sampler = optuna.samplers.RandomSampler()  # never asked, see `propose`
    shown = f"hydra.sweeper.storage={storage}"
    if storage is not None and not storage.startswith(JOURNAL) and "://" not in storage:
        raise UserError(f"{shown}: give journal:FILE, sqlite:///FILE or the URL of another database")
    try:
        backend = _journal(storage, folder) if (storage or JOURNAL).startswith(JOURNAL) else storage
        study = optuna.create_study(
            storage=backend, study_name=name, direction=direction, sampler=sampler, load_if_exists=True
        )
    except Exception as error:  # of a file system, SQLAlchemy or a database's driver
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{shown} cannot be opened: {reason[0]}") from error
    if study.direction.name.lower() != direction:
        raise UserError(
            f"hydra.sweeper.direction={direction}: the study {name} has {study.direction.name.lower()}; "
            "another hydra.sweeper.study_name=NAME starts a new one"
        )
    return study


def _journal(storage: str | None, folder: Path) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    path = folder / "optuna.journal"
    if storage is not None:
        path = Path(storage.removeprefix(JOURNAL)).absolute()
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
    if storage is None and path.exists():  # only this process writes here: clean up after a kill
        path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
        content = path.read_bytes()
        os.truncate(path, content.rfind(b"\n") + 1)
    return JournalStorage(JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path))))


def sampler_for(given: Any, number: int, space: Space) -> Any:
    """A new sampler for the trial `number`: what it proposes follows from its seed, the number and the trials before.

    Raises:
        UserError: there is no such sampler, or it does not take an option.
    """
    import numpy as np
    import optuna

    key = "hydra.sweeper.sampler"
    kind, options = _class_of(given, key, optuna.samplers, SAMPLERS, "Sampler")
    seed = options.get("seed") or 0
    if type(seed) is not int or seed < 0:
        raise UserError(f"{key}.seed={seed}: a whole number of at least 0")
    options["seed"] = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    if kind is optuna.samplers.GridSampler:
        options |= {"seed": seed, "search_space": space.grid()}  # the seed orders the grid, for all trials alike
        if options["search_space"] is None:
            raise UserError(f"{key}: a grid takes choice() and range(), and no interval()")
    return _made(kind, options, key)


def most_trials(sampler: Any, space: Space) -> int:
    """How many trials a sampler that tries every combination once can propose; `sys.maxsize` for the others."""
    import optuna

    kind, _ = _class_of(sampler, "hydra.sweeper.sampler", optuna.samplers, SAMPLERS, "Sampler")
    grid = space.grid() if kind in (optuna.samplers.GridSampler, optuna.samplers.BruteForceSampler) else None
    return math.prod(map(len, grid.values())) if grid else sys.maxsize


def record(study: "optuna.Study", trial: "FrozenTrial", values: Mapping[int, float], rungs: Mapping[str, Any]) -> None:
    """Write a trial's epochs and rungs to the storage; what a killed search has written of them before is left."""
    import optuna

    one = optuna.Trial(study, trial._trial_id)
    for epoch in sorted(values.keys() - trial.intermediate_values.keys()):
        one.report(values[epoch], epoch)
    if rungs:
        one.set_user_attr(RUNGS, dict(rungs))


def propose(trials: "Sequence[FrozenTrial]", sampler: Any, direction: Direction, space: Space) -> "FrozenTrial":
    """The next trial after `trials`, running and with all its parameters; nothing is written anywhere.

    Raises:
        UserError: the sampler refuses an option or the space, or lacks a package.
    """
    import optuna

    study = optuna.create_study(direction=direction, sampler=sampler)
    study.add_trials(trials)
    try:
        study.ask(dict(space.distributions))
    except (TypeError, ValueError, ImportError) as error:
        raise UserError(f"hydra.sweeper.sampler: {' '.join(str(error).split())}") from error
    return study.trials[-1]


def try_sampler(given: Any, direction: Direction, space: Space) -> None:
    """Propose two trials in memory, one of them after others; raises UserError as `sampler_for` and `propose`.

    Samplers begin with random trials, and would report a missing package or a wrong option after these only.
    """
    import optuna

    propose([], sampler_for(given, 0, space), direction, space)
    kind, options = _class_of(given, "hydra.sweeper.sampler", optuna.samplers, SAMPLERS, "Sampler")
    if "n_startup_trials" in inspect.signature(kind).parameters:
        options["n_startup_trials"] = 1
    study = optuna.create_study(direction=direction, sampler=optuna.samplers.RandomSampler(0))
    for value in (0.0, 1.0):
        study.tell(study.ask(dict(space.distributions)), value)
    propose(study.trials, sampler_for({**options, "_target_": kind.__name__}, 2, space), direction, space)


def pruner_of(given: Any) -> Any:
    """The pruner; raises UserError as `sampler_for`."""
    import optuna

    kind, options = _class_of(given, "hydra.sweeper.pruner", optuna.pruners, PRUNERS, "Pruner")
    return _made(kind, options, "hydra.sweeper.pruner")


def _class_of(given: Any, key: str, module: Any, known: Sequence[str], suffix: str) -> tuple[Any, dict[str, Any]]:
    """The class that `given` names, by `_target_` or by a word like median, and its options."""
    options = dict(given) if isinstance(given, Mapping) else {"_target_": given}
    target = str(options.pop("_target_", None))
    word = _plain(target.removeprefix(f"{module.__name__}."), suffix)
    if word not in map(_plain, known):
        kind = suffix.lower()
        raise UserError(f"{key}={target}: there is no such {kind}\nchoose from: {', '.join(known)}")
    return next(getattr(module, name) for name in module.__all__ if _plain(name, suffix) == word), options


def _plain(name: str, suffix: str = "") -> str:
    return name.removesuffix(suffix).replace("_", "").lower()


def _made(kind: Any, options: dict[str, Any], key: str) -> Any:
    known = list(inspect.signature(kind).parameters)
    for name in options:
        if name not in known:
            raise UserError(
                f"{key}.{name}: {kind.__name__} has no such option{did_you_mean(name, known)}\n"
                f"options: {', '.join(known)}"
            )
    try:
        return kind(**options)
    except (TypeError, ValueError, ImportError) as error:
        raise UserError(f"{key}: {' '.join(str(error).split())}") from error


class Pruning:
    """What the pruner decides about trials that run together, after the trials `before` them.

    A decision follows from the trial's own epochs and from `before`: each trial has a copy of the study and a pruner of
    its own, so neither the speed of the other trials nor a restart changes it.
    """

    def __init__(self, given: Any, study: "optuna.Study", before: "Sequence[FrozenTrial]") -> None:
        self._given, self._name, self._direction = given, study.study_name, study.direction
        self._before = [copy.copy(one) for one in before]
        for one in self._before:
            one.system_attrs = {**one.system_attrs, **one.user_attrs.get(RUNGS, {})}
        self._trials: dict[int, optuna.Trial] = {}
        self._pruned: set[int] = set()

    def decides(self, number: int, values: Mapping[int, float]) -> bool:
        """Whether the trial ends after the last of its `values`, val/top1 by epoch from 0."""
        if number not in self._trials:
            self._trials[number] = self._copy(number)
        trial = self._trials[number]
        for epoch in sorted(values.keys() - trial.study.trials[-1].intermediate_values.keys()):
            trial.report(values[epoch], epoch)
            if trial.should_prune():
                self._pruned.add(number)
        return number in self._pruned

    def rungs(self, number: int) -> dict[str, Any]:
        """What successive halving keeps of a trial that has ended, for decisions about later ones."""
        return dict(self._trials[number].study.trials[-1].system_attrs)

    def _copy(self, number: int) -> "optuna.Trial":
        import optuna

        study = optuna.create_study(
            study_name=self._name,
            direction=self._direction,
            sampler=optuna.samplers.RandomSampler(),
            pruner=pruner_of(self._given),
        )
        study.add_trials(self._before)
        while (trial := study.ask()).number < number:  # the others that run with it
            pass
        return trial
