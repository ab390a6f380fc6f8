"""An option that does not fit is reported with the recipe that sets it and with a remedy."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alexnet_lab.config.build import build
from alexnet_lab.config.recipes import naming_recipes
from alexnet_lab.errors import UserError

Settings = Callable[..., dict[str, Any]]


def refused(settings: Settings, group: str, *overrides: str) -> list[str]:
    with pytest.raises(UserError) as raised, naming_recipes(overrides):
        build(settings(*overrides)[group], group)
    return str(raised.value).splitlines()


def test_recipe_that_set_an_unknown_option_is_named_with_its_file_and_the_remedies(settings: Settings) -> None:
    first, second = refused(settings, "data", "experiment=d2l_lenet", "data=synthetic")
    assert first == "data.validate_on: alexnet_lab.data.synthetic.synthetic has no such option"
    assert second == (
        "conf/experiment/d2l_lenet.yaml sets data.validate_on, which the chosen data does not take: "
        "omit data=synthetic, or change the options that do not fit: ~data.validate_on"
    )


def test_remedy_works(settings: Settings) -> None:
    build(settings("experiment=d2l_lenet", "data=synthetic", "~data.validate_on")["data"], "data")


def test_all_options_that_do_not_fit_are_reported_at_once(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/mine.yaml").write_text(
        "data: {validate_on: test, crop_size: 24, mean: channels, flip: 0.5}"
    )
    wrong = settings("data=synthetic", "+data.validate_on=test", "+data.crop_size=24", "data.mean=channels")
    with pytest.raises(UserError) as raised, naming_recipes(("experiment=mine", "data=synthetic"), tmp_path):
        build(wrong["data"], "data")
    first, second = str(raised.value).splitlines()
    assert first == "data.mean: 'channels' does not fit: Input should be a valid array"
    assert second.endswith(": ~data.validate_on ~data.crop_size data.mean=...")


@pytest.mark.parametrize(
    "overrides",
    [
        ("experiment=d2l_lenet", "+data.foo=1"),
        ("experiment=d2l_lenet", "data.batch_size=1.5"),
        ("data=synthetic", "+data.validate_on=test"),
    ],
)
def test_recipe_is_not_blamed_for_typed_options(overrides: tuple[str, ...], settings: Settings) -> None:
    assert not any("conf/experiment" in line for line in refused(settings, "data", *overrides))
