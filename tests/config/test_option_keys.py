"""A command has the keys of its primary config, none missing and no others."""

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from alexnet_lab.config.keys import check_choices, check_keys
from alexnet_lab.errors import UserError

CONF = Path(__file__).parents[2] / "conf"


@pytest.mark.parametrize(
    ("command", "overrides", "message"),
    [
        ("predict", ["~top"], "top is missing; it can be changed, but not removed"),
        ("predict", ["+topp=3"], "there is no option 'topp', did you mean top\\?"),
        ("prepare", ["+chunk_images=3"], "there is no option 'chunk_images'"),
        ("evaluate", ["+batch_size=3"], "there is no option 'batch_size'"),
        ("train", ["~seed"], "seed is missing"),
        ("train", ["+foo=1"], "there is no option 'foo'"),
    ],
)
def test_added_or_removed_key_is_refused(
    composed: Callable[..., DictConfig], command: str, overrides: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        check_keys(composed(command, *overrides), CONF / f"{command}.yaml")


@pytest.mark.parametrize(
    ("command", "overrides"),
    [
        *((command, []) for command in ("predict", "evaluate", "export", "prepare", "compare", "results", "describe")),
        ("train", ["experiment=quickstart", "debug=fast_dev_run", "logger=[]", "run=a"]),
        ("evaluate", ["+data.foo=1", "out=null"]),
    ],
)
def test_keys_of_the_primary_config_are_taken(
    composed: Callable[..., DictConfig], command: str, overrides: list[str]
) -> None:
    check_keys(composed(command, *overrides), CONF / f"{command}.yaml")


def test_several_choices_of_a_group_and_none_are_refused() -> None:
    with pytest.raises(UserError, match="one model at a time; a sweep over them is -m model=lenet,caffenet"):
        check_choices(["model=[lenet,caffenet]"])
    with pytest.raises(UserError, match="one data is needed"):
        check_choices(["data=[]"])
    check_choices(["model=[lenet]", "logger=[csv,wandb]", "data.mean=[1,2]"])
