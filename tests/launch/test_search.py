"""Searches without any training: jobs are replaced by a function of their overrides, and a kill by an exception."""

import json
import sqlite3
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.core.utils import JobStatus

optuna = pytest.importorskip("optuna", minversion="4", reason="the extra optuna is not installed")

from alexnet_lab.errors import RunFailed, RunInterrupted, UserError  # noqa: E402
from alexnet_lab.launch import search_study  # noqa: E402
from alexnet_lab.launch.search import Search, checked  # noqa: E402
from alexnet_lab.launch.search_space import space_of  # noqa: E402

GIVEN = {
    "n_trials": 7,
    "n_jobs": None,
    "direction": "maximize",
    "storage": None,
    "study_name": None,
    "max_failure_rate": 1.0,
    "sampler": {"_target_": "optuna.samplers.TPESampler", "seed": 3, "n_startup_trials": 3},
    "pruner": None,
    "params": {},
}
SPACE = ("a=tag(log,interval(0.001,1))", "b=choice(x,y,z)", "c=int(interval(1,9))", "d=range(0,1,0.25)", "fixed=1")


class Killed(BaseException):
    """Stands for SIGKILL."""


class Jobs:
    """Takes the place of a launcher: a job's accuracies are a function of its overrides.

    `kill_at` is the number of the job, counted over all launches, before which the sweep is killed.
    """

    def __init__(self, folder: Path, kill_at: int = -1, epochs: int = 4, fails: str = "") -> None:
        self.folder, self.kill_at, self.epochs, self.fails = folder, kill_at, epochs, fails
        self.prunes: Callable[[int, Mapping[int, float]], bool] | None = None
        self.launched: list[tuple[int, list[str]]] = []

    def launch(self, overrides: Sequence[Sequence[str]], first: int) -> list[Any]:
        returns = []
        for place, one in enumerate(overrides):
            if len(self.launched) == self.kill_at:
                raise Killed
            self.launched.append((first + place, list(one)))
            returns.append(self._job(place, list(one)))
        return returns

    def _job(self, place: int, overrides: list[str]) -> Any:
        name = f"job-{zlib.crc32(' '.join(overrides).encode())}"
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        status, seen = "finished", {}
        for epoch in range(self.epochs):
            seen[epoch] = accuracy(overrides, epoch)
            if self.prunes and self.prunes(place, seen):
                status = "pruned"
                break
        if self.fails and any(self.fails in text for text in overrides):
            status = "failed"
        rows = [f"{epoch},{epoch + 1},{top1!r}" for epoch, top1 in seen.items()]
        (folder / "metrics.csv").write_text("\n".join(["epoch,step,val/top1", *rows, ""]))
        (folder / "result.json").write_text(json.dumps({"status": status}))
        sweep = SimpleNamespace(dir=str(self.folder), subdir=name)
        return Returned(max(seen.values()), status, SimpleNamespace(hydra=SimpleNamespace(sweep=sweep)))


class Returned:
    def __init__(self, value: float, status: str, hydra_cfg: Any) -> None:
        self._value, self._failed, self.hydra_cfg = value, status == "failed", hydra_cfg
        self.status = JobStatus.FAILED if self._failed else JobStatus.COMPLETED

    @property
    def return_value(self) -> float:
        if self._failed:
            raise RunFailed("on purpose")
        return self._value


def accuracy(overrides: Sequence[str], epoch: int) -> float:
    return zlib.crc32(f"{sorted(overrides)} {epoch}".encode()) / 2**32 * (epoch + 1) / 4


def search_in(
    folder: Path, resumes: bool = True, at_once: int = 1, space: Sequence[str] = SPACE, **given: Any
) -> Search:
    return Search(checked({**GIVEN, **given}), space_of(space, None), folder, at_once, resumes)


def run(search: Search, jobs: Jobs) -> None:
    jobs.prunes = search.prunes if search._settings.pruner else None
    search.run(jobs.launch, lambda overrides: None)


def trials(search: Search) -> list[tuple[Any, ...]]:
    found = search._study.get_trials(deepcopy=False)
    return [(one.number, one.state.name, one.values, one.params, one.intermediate_values) for one in found]


KINDS: dict[str, dict[str, Any]] = {
    "random": {"sampler": "random"},
    "tpe": {},
    "tpe with trials of a group in mind": {
        "sampler": {"_target_": "tpe", "constant_liar": True, "n_startup_trials": 2}
    },
    "nsgaii": {"sampler": {"_target_": "nsgaii", "population_size": 3}},
    "brute force": {"sampler": "brute_force", "space": ("b=choice(x,y,z)", "d=range(0,1,0.25)")},
    "grid": {"sampler": "grid", "space": ("b=choice(x,y)", "e=true,false", "c=range(1,3)"), "n_trials": 50},
    "median": {"pruner": {"_target_": "median", "n_startup_trials": 2}, "n_trials": 9},
    "threshold": {"pruner": {"_target_": "optuna.pruners.ThresholdPruner", "lower": 0.1}},
    "successive halving": {"pruner": {"_target_": "successive_halving", "reduction_factor": 2}, "n_trials": 9},
    "hyperband": {"pruner": {"_target_": "hyperband", "max_resource": "auto", "reduction_factor": 2}, "n_trials": 9},
}


@pytest.mark.parametrize("at_once", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_killed_search_has_the_trials_and_values_of_an_uninterrupted_one(
    kind: str, at_once: int, tmp_path: Path
) -> None:
    whole = search_in(tmp_path / "whole" / "run", at_once=at_once, **KINDS[kind])
    run(whole, Jobs(tmp_path / "whole" / "run"))
    expected = trials(whole)
    assert {state for _, state, *_ in expected} <= {"COMPLETE", "PRUNED"}
    for kill_at in (0, 4, len(expected) - 1):
        folder = tmp_path / str(kill_at) / "run"
        with pytest.raises(Killed):
            run(search_in(folder, at_once=at_once, **KINDS[kind]), Jobs(folder, kill_at))
        again = search_in(folder, at_once=at_once, **KINDS[kind])
        run(again, Jobs(folder))
        assert trials(again) == expected


@pytest.mark.parametrize("write", ["add_trial", "tell"])
@pytest.mark.parametrize("at_once", [1, 3])
def test_kill_between_any_two_writes_to_the_study_changes_nothing(
    write: str, at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pruned = KINDS["successive halving"]
    whole = search_in(tmp_path / "whole" / "run", at_once=at_once, **pruned)
    run(whole, Jobs(tmp_path / "whole" / "run"))
    for number in range(0, 9, 2):
        folder = tmp_path / str(number) / "run"
        search = search_in(folder, at_once=at_once, **pruned)
        done = getattr(search._study, write)
        left = [number]

        def killed(*given: Any, done: Any = done, left: list[int] = left, **more: Any) -> None:
            if not left[0]:
                raise Killed
            left[0] -= 1
            done(*given, **more)

        monkeypatch.setattr(search._study, write, killed)
        with pytest.raises(Killed):
            run(search, Jobs(folder))
        again = search_in(folder, at_once=at_once, **pruned)
        run(again, Jobs(folder))
        assert trials(again) == trials(whole)


@pytest.mark.parametrize("kind", ["median", "threshold", "successive halving", "hyperband"])
def test_trial_is_pruned_where_the_pruner_by_itself_prunes_it(kind: str, tmp_path: Path) -> None:
    search = search_in(tmp_path / "run", **KINDS[kind])
    run(search, Jobs(tmp_path / "run"))
    study = optuna.create_study(
        study_name="run", direction="maximize", pruner=search_study.pruner_of(KINDS[kind]["pruner"])
    )
    pruned = 0
    for one in search._study.trials:
        trial, ended = study.ask(), False
        for epoch in range(4):
            trial.report(accuracy(search._space.overrides(one.params), epoch), epoch)
            if ended := trial.should_prune():
                break
        assert one.last_step == epoch
        assert one.state.name == ("PRUNED" if ended else "COMPLETE")
        pruned += ended
        study.tell(trial, None if ended else one.value, state=one.state)
    assert 0 < pruned < len(search._study.trials)


def test_pruned_and_finished_jobs_of_a_group_are_told_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path / "run")
    run(search_in(tmp_path / "run", at_once=2, **KINDS["threshold"]), jobs)
    assert [number for number, _ in jobs.launched] == list(range(7))


@pytest.mark.parametrize("storage", ["journal:{folder}/mine.journal", "sqlite:///{folder}/mine.db"])
def test_study_in_a_storage_is_continued_and_shared(storage: str, tmp_path: Path) -> None:
    storage = storage.format(folder=tmp_path)
    with pytest.raises(Killed):
        run(search_in(tmp_path / "one", storage=storage, study_name="both"), Jobs(tmp_path / "one", 4))
    with pytest.raises(UserError, match="run one exists already in the study both"):
        search_in(tmp_path / "one", resumes=False, storage=storage, study_name="both")
    search = search_in(tmp_path / "one", storage=storage, study_name="both")
    run(search, Jobs(tmp_path / "one"))
    other = search_in(tmp_path / "two", resumes=False, storage=storage, study_name="both", n_trials=2)
    jobs = Jobs(tmp_path / "two")
    run(other, jobs)
    assert [number for number, _ in jobs.launched] == [7, 8]
    assert (
        len(
            optuna.load_study(
                study_name="both",
                storage=search_study._journal(storage, tmp_path) if "journal:" in storage else storage,
            ).trials
        )
        == 9
    )
    if storage.startswith("sqlite"):
        with sqlite3.connect(tmp_path / "mine.db") as database:
            assert database.execute("select count(*) from trials").fetchone() == (9,)


def test_journal_with_a_line_that_a_kill_cut_off_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(Killed):
        run(search_in(folder), Jobs(folder, 2))
    with (folder / "optuna.journal").open("a") as journal:
        journal.write('{"op_code": 4, "study')
    (folder / "optuna.journal.lock").touch()
    search = search_in(folder)
    run(search, Jobs(folder))
    assert len(trials(search)) == 7


def test_more_trials_are_added_to_a_search_that_has_ended(tmp_path: Path) -> None:
    run(search_in(tmp_path / "run", n_trials=3), Jobs(tmp_path / "run"))
    jobs = Jobs(tmp_path / "run")
    run(search_in(tmp_path / "run", n_trials=5), jobs)
    assert [number for number, _ in jobs.launched] == [3, 4]


def test_failed_trials_are_counted_and_the_first_failure_is_raised_at_the_end(tmp_path: Path) -> None:
    search = search_in(tmp_path / "run", sampler="random", n_trials=9)
    with pytest.raises(RunFailed, match="on purpose"):
        run(search, Jobs(tmp_path / "run", fails="b=x"))
    states = [state for _, state, *_ in trials(search)]
    assert len(states) == 9
    assert {"FAIL", "COMPLETE"} == {*states}
    assert search._study.best_trial.params["b"] != "x"


def test_max_failure_rate_ends_the_search(tmp_path: Path) -> None:
    search = search_in(tmp_path / "run", sampler="random", n_trials=9, max_failure_rate=0.0)
    with pytest.raises(RunFailed, match="on purpose"):
        run(search, Jobs(tmp_path / "run", fails="b=x"))
    assert [state for _, state, *_ in trials(search)].index("FAIL") == len(trials(search)) - 1


def test_interrupted_trial_is_kept_and_the_command_that_continues_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = Jobs(tmp_path / "run")

    def interrupted(overrides: Sequence[Sequence[str]], first: int) -> list[Any]:
        returns = jobs.launch(overrides, first)
        if first == 2:
            path = tmp_path / "run" / returns[0].hydra_cfg.hydra.sweep.subdir / "result.json"
            path.write_text('{"status": "interrupted"}')
        return returns

    search = search_in(tmp_path / "run")
    with pytest.raises(RunInterrupted):
        search.run(interrupted, lambda overrides: None)
    assert [state for _, state, *_ in trials(search)] == ["COMPLETE", "COMPLETE", "RUNNING"]
    assert "continue the search with: python src/train.py run=run resume=auto" in capsys.readouterr().err
    again = search_in(tmp_path / "run")
    run(again, Jobs(tmp_path / "run"))
    assert len(trials(again)) == 7


def test_trial_that_cannot_be_composed_is_not_written_down(tmp_path: Path) -> None:
    def refuse(overrides: list[str]) -> None:
        raise UserError("no such model")

    search = search_in(tmp_path / "run")
    with pytest.raises(UserError, match="no such model"):
        search.run(Jobs(tmp_path / "run").launch, refuse)
    assert trials(search) == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a=interval(0,1)", "FloatDistribution(high=1.0, log=False, low=0.0, step=None)"),
        ("a=tag(log,interval(0.1,1))", "FloatDistribution(high=1.0, log=True, low=0.1, step=None)"),
        ("a=int(interval(1,5))", "IntDistribution(high=5, log=False, low=1, step=1)"),
        ("a=int(tag(log,interval(1,64)))", "IntDistribution(high=64, log=True, low=1, step=1)"),
        ("a=range(1,10,step=2)", "IntDistribution(high=9, log=False, low=1, step=2)"),
        ("a=range(4)", "IntDistribution(high=3, log=False, low=0, step=1)"),
        ("a=range(10,1,-3)", "IntDistribution(high=10, log=False, low=4, step=3)"),
        ("a=sort(range(1,4),reverse=true)", "IntDistribution(high=3, log=False, low=1, step=1)"),
        ("a=tag(log,range(1,9))", "IntDistribution(high=8, log=True, low=1, step=1)"),
        ("a=range(0,1,0.1)", "FloatDistribution(high=0.9, log=False, low=0.0, step=0.1)"),
        ("a=float(range(1,4))", "FloatDistribution(high=3.0, log=False, low=1.0, step=1.0)"),
        ("a=shuffle(range(3))", "CategoricalDistribution(choices=(0, 1, 2))"),
        ("a=sgd,adamw", "CategoricalDistribution(choices=('sgd', 'adamw'))"),
        ("a=shuffle(x,y)", "CategoricalDistribution(choices=('x', 'y'))"),
        ("a=sort(3,1,2)", "CategoricalDistribution(choices=(1, 2, 3))"),
        ("a=choice([1,2],true,'x, y',0.5)", r"CategoricalDistribution(choices=('[1,2]', True, 'x\\,\\ y', 0.5))"),
        ("+a@b=1,2", "CategoricalDistribution(choices=(1, 2))"),
    ],
)
def test_override_becomes_the_distribution(text: str, shown: str) -> None:
    (found,) = space_of([text], None).distributions.values()
    assert str(found) == shown


def test_trials_overrides_keep_every_digit_and_what_is_quoted() -> None:
    space = space_of(["x='a,b'", "a=choice('x, y')", "b=true,false", "c=interval(0,1)", "x=[1,2]"], None)
    values = {"a": space.distributions["a"].choices[0], "b": True, "c": 0.1 + 0.2}  # type: ignore[attr-defined]
    assert space.overrides(values) == ["x=[1,2]", r"a=x\,\ y", "b=true", "c=0.30000000000000004"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a=interval(1,0)", "the interval is empty"),
        ("a=interval(3,3)", "the interval is empty"),
        ("a=interval(0,inf)", "two finite numbers"),
        ("a=int(interval(0.2,0.8))", "the interval is empty"),
        ("a=tag(log,interval(0,1))", "must begin above 0"),
        ("a=tag(log,choice(1,2))", "takes an interval"),
        ("a=tag(log,range(1,9,2))", "the step 1"),
        ("a=tag(lgo,interval(1,2))", "tag lgo has no meaning"),
        ("a=range(5,1)", "the range is empty"),
        ("a=range(1,2,0)", "a STEP other than 0"),
        ("a=range(0,10,0.0000001)", "more than 1,000,000 values"),
        ("a=1", "a search needs something to vary"),
    ],
)
def test_space_that_cannot_be_searched_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        space_of([text], None)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n_trials": 0}, "hydra.sweeper.n_trials: 0 does not fit"),
        ({"n_jobs": "two"}, "hydra.sweeper.n_jobs: 'two' does not fit"),
        ({"direction": "up"}, "hydra.sweeper.direction: 'up' does not fit"),
        ({"max_failure_rate": 2}, "hydra.sweeper.max_failure_rate: 2 does not fit"),
        ({"n_trial": 3}, "there is no option 'hydra.sweeper.n_trial'"),
        ({"sampler": "tpee"}, "sampler=tpee: there is no such sampler\nchoose from: tpe, random, grid"),
        ({"sampler": {"_target_": "os.system"}}, "sampler=os.system: there is no such sampler"),
        ({"sampler": {"_target_": "tpe", "sed": 1}}, "sampler.sed: TPESampler has no such option, did you mean seed?"),
        ({"sampler": {"_target_": "tpe", "seed": -1}}, "sampler.seed=-1: a whole number of at least 0"),
        ({"sampler": {"_target_": "tpe", "n_ei_candidates": "x"}}, "hydra.sweeper.sampler: "),
        ({"sampler": "grid"}, "a grid takes choice.. and range.., and no interval"),
        ({"pruner": "medain"}, "pruner=medain: there is no such pruner\nchoose from: median"),
        ({"pruner": "threshold"}, "hydra.sweeper.pruner: Either lower or upper must be specified"),
        ({"storage": "mine.db"}, "storage=mine.db: give journal:FILE, sqlite:///FILE"),
        ({"storage": "sqlite:////nowhere/at/all.db"}, "all.db cannot be opened: .*unable to open database file"),
        ({"storage": "journal:/nowhere/at/all"}, "storage=journal:/nowhere/at/all cannot be opened"),
        ({"storage": "nosuch://host/x"}, "storage=nosuch://host/x cannot be opened"),
    ],
)
def test_wrong_setting_is_refused_in_a_line(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        search_in(tmp_path / "run", **given)


def test_package_that_a_sampler_lacks_is_reported_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "cmaes", None)
    with pytest.raises(UserError, match=r"hydra.sweeper.sampler: .*cmaes"):
        search_in(tmp_path / "run", sampler="cmaes", space=("a=interval(0,1)", "b=interval(0,1)"))


def test_study_of_another_direction_is_refused(tmp_path: Path) -> None:
    search_in(tmp_path / "run")
    with pytest.raises(UserError, match="direction=minimize: the study run has maximize"):
        search_in(tmp_path / "run", direction="minimize")


def test_search_is_continued_with_the_same_values_to_vary(tmp_path: Path) -> None:
    run(search_in(tmp_path / "run", n_trials=1), Jobs(tmp_path / "run"))
    message = "run run has begun with other values to vary: b was CategoricalDistribution.*, and is fixed\n"
    with pytest.raises(UserError, match=message):
        search_in(tmp_path / "run", space=[text for text in SPACE if not text.startswith("b=")])


def test_examples_use_each_choice_of_a_group_once() -> None:
    space = space_of(["model=lenet,caffenet", "optimizer.lr=interval(0,1)", "seed=0,1,2", "trainer=cpu"], None)
    others = ["optimizer.lr=0.0", "seed=0"]
    assert space.examples(lambda key: key == "model") == [
        ["trainer=cpu", "model=lenet", *others],
        ["trainer=cpu", "model=caffenet", *others],
    ]


@pytest.mark.parametrize(("version", "message"), [(None, "a search needs Optuna: pip install"), ("2.10.1", "Optuna 4")])
def test_missing_or_old_optuna_is_told_with_the_remedy(
    version: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    if version:
        monkeypatch.setattr(optuna, "__version__", version)
    else:
        monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=message):
        checked(GIVEN)
