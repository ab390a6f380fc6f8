"""The schema of the settings `freeze` and `layers`, see `layer_patterns`. Imports neither torch nor lightning."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class LayerSettings(BaseModel):
    """Factors of the optimizer's learning rate and weight decay, for what a pattern matches."""

    model_config = ConfigDict(extra="forbid", strict=True)

    pattern: str | int
    lr: Annotated[float, Field(ge=0)] = 1.0
    weight_decay: Annotated[float, Field(ge=0)] = 1.0


def _patterns(value: Any) -> Any:
    if isinstance(value, str):
        raise ValueError(f"it takes a list: [{value}]")
    return value


def _layers(value: Any) -> Any:
    is_list = isinstance(value, list) and all(isinstance(one, Mapping) for one in value)
    if value is not None and not is_list:
        raise ValueError("it takes a list such as [{pattern: fc8, lr: 10}]")
    return value


Patterns = Annotated[list[str | int], BeforeValidator(_patterns)]
Layers = Annotated[list[LayerSettings] | None, BeforeValidator(_layers)]
