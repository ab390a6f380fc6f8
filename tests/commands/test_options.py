"""Each command refuses values of other types than docs/configuration.md lists for its own options."""

from collections.abc import Callable
from importlib import import_module

import pytest
from omegaconf import DictConfig, OmegaConf

from alexnet_lab.errors import UserError

NEEDED = {
    "compare": ["runs=x"],
    "evaluate": ["checkpoint=x"],
    "export": ["checkpoint=x", "format=state_dict"],
    "predict": ["checkpoint=x", "images=x"],
    "prepare": ["data=imagenette"],
    "results": [],
}


@pytest.mark.parametrize("command", NEEDED)
def test_option_of_another_type_is_refused_by_name(command: str, composed: Callable[..., DictConfig]) -> None:
    module = import_module(f"alexnet_lab.commands.{command}")
    config = composed(command, *NEEDED[command])
    for key, kind in module.KINDS.items():
        wrong = OmegaConf.merge(config)
        OmegaConf.update(wrong, key, 0.5 if "dict" in str(kind) else {"a": 1}, merge=False, force_add=True)
        with pytest.raises(UserError, match=rf"\b{key}\b"):
            getattr(module, command)(wrong)
