"""What a wrong command line is told, from Hydra's own errors."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from alexnet_lab.commands.advice import advice, did_you_mean
from alexnet_lab.commands.entry import register_resolvers
from alexnet_lab.errors import UserError

CONF = str(Path(__file__).parents[2] / "conf")


def told(*overrides: str) -> str:
    register_resolvers()
    with (
        initialize_config_dir(CONF, version_base="1.3"),
        pytest.raises((HydraException, OmegaConfBaseException)) as raised,
    ):
        compose("train", list(overrides))
    return advice(raised.value, CONF)


def test_unknown_option_names_the_close_one_and_all_there_are() -> None:
    first, second = told("model=alexnet_orignal").splitlines()
    assert first == "model=alexnet_orignal: there is no such model, did you mean alexnet_original?"
    assert second.startswith("choose from: alexnet_d2l, alexnet_half_v1, ")
    assert second.endswith("lenet")


def test_unknown_experiment_is_told_likewise() -> None:
    assert told("experiment=quickstrat").startswith(
        "experiment=quickstrat: there is no such experiment, did you mean quickstart?"
    )


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("optimizer.lrr=1", "there is no option 'optimizer.lrr', did you mean lr?"),
        ("trainer.max_epoch=1", "there is no option 'trainer.max_epoch', did you mean max_epochs?"),
        ("sede=1", "there is no option 'sede', did you mean seed?"),
        ("optimzer.lr=1", "there is no option 'optimzer', did you mean optimizer?"),
        ("modl=lenet", "there is no option 'modl', did you mean model?"),
        ("xyzzy=1", "there is no option 'xyzzy'"),
    ],
)
def test_unknown_key_names_the_close_one(override: str, line: str) -> None:
    assert told(override).splitlines() == [line, "`--cfg job` prints every option"]


def test_unreadable_override_is_told_in_few_lines() -> None:
    (line,) = told("model.dropout=[").splitlines()
    assert line.startswith("model.dropout=[: this cannot be read")


def test_users_error_is_told_as_it_is_however_deep_it_lies() -> None:
    error = RuntimeError("outer")
    error.__cause__ = UserError("what is wrong")
    assert advice(error, CONF) == "what is wrong"


def test_nothing_is_suggested_where_nothing_is_close() -> None:
    assert did_you_mean("dropuot", ["dropout", "lrn"]) == ", did you mean dropout?"
    assert did_you_mean("zzz", ["dropout", "lrn"]) == ""
