"""Every `conf/model` file has the factory's parameters as keys and the published values."""

import importlib
import inspect
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from test_network_tables import PUBLISHED

CONFIGS = sorted((Path(__file__).parents[2] / "conf" / "model").glob("*.yaml"))


def test_every_network_has_a_config_and_a_row_in_the_published_table() -> None:
    assert {factory.__name__ for factory, *_ in PUBLISHED.values()} == {path.stem for path in CONFIGS}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_lists_every_parameter_with_the_published_value(path: Path) -> None:
    config = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    module, _, name = config.pop("_target_").rpartition(".")
    assert name == path.stem
    assert config.pop("in_channels") == "${data.channels}"
    assert config.pop("num_classes") == "${data.num_classes}"
    factory = getattr(importlib.import_module(module), name)
    defaults = {key: parameter.default for key, parameter in inspect.signature(factory).parameters.items()}
    del defaults["in_channels"], defaults["num_classes"]
    assert config == defaults
    assert {key: type(value) for key, value in config.items()} == {k: type(v) for k, v in defaults.items()}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_names_the_source_of_the_network(path: Path) -> None:
    assert path.read_text().startswith("# ")
