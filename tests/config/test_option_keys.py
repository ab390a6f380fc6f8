"""A command accepts exactly the keys of its primary config."""

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
def test_keys_of_the_primary_config_are_accepted(
    composed: Callable[..., DictConfig], command: str, overrides: list[str]
) -> None:
    check_keys(composed(command, *overrides), CONF / f"{command}.yaml")


def test_zero_or_several_choices_of_a_group_are_refused() -> None:
    with pytest.raises(UserError, match="choose one model, or sweep over several: -m model=lenet,caffenet"):
        check_choices(["model=[lenet,caffenet]"], "train")
    with pytest.raises(UserError, match="choose one data"):
        check_choices(["data=[]"], "train")
    check_choices(["model=[lenet]", "logger=[csv,wandb]", "data.mean=[1,2]"], "train")
