"""The settings of the training objective, `loss` in a run's configuration.

Imports neither torch nor lightning.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

SMALLEST, LARGEST = 1e-20, 1e20
"""Class weights between which the loss of a batch is neither 0 nor infinite in float32."""


def _weighs(value: Any) -> Any:
    if value is None or value == "balanced":
        return value
    if not isinstance(value, list) or not all(type(one) in (int, float) and one >= 0 for one in value):
        raise ValueError("choose balanced, null, or a list with a number for each class, none of them negative")
    if not all(one == 0 or SMALLEST <= one <= LARGEST for one in value):
        raise ValueError(f"a weight must be 0, or from {SMALLEST} to {LARGEST}")
    if not any(value):
        raise ValueError("at least one weight must be above 0")
    return value


class LossSettings(BaseModel):
    """See `conf/train.yaml`; the defaults are those of older runs, which do not record them."""

    model_config = ConfigDict(extra="forbid", strict=True)

    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    class_weights: Annotated[Literal["balanced"] | list[float] | None, BeforeValidator(_weighs)] = None
