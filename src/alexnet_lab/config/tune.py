"""The keys of a learning-rate range test. Imports neither torch nor lightning."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo


def _above_start(value: float, others: ValidationInfo) -> float:
    if value <= others.data.get("start", 0):
        raise ValueError("it must be above tune.start")
    return value


class TuneSettings(BaseModel):
    """A learning-rate range test, see `conf/tune/lr.yaml`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    start: Annotated[float, Field(gt=0)]
    end: Annotated[float, AfterValidator(_above_start)]
    steps: Annotated[int, Field(ge=20)]
    folder: str
