"""The schema of a recipe: what an experiment says about itself, and the metrics that its source published."""

from pydantic import BaseModel, ConfigDict, Field


class Published(BaseModel):
    """A figure as its source gives it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    value: float
    deviation: float | None = None
    """Standard deviation over the source's runs."""
    range: tuple[float, float] | None = Field(default=None, strict=False)
    """Lowest and highest of the source's runs."""


class Ablation(BaseModel):
    """What leaving a part out changed, as the source of the whole gives it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    published: dict[str, float] = {}
    """Differences of accuracy, fractions of 1, by `top1` and `top5`."""
    note: str = ""


class Ensemble(BaseModel):
    """What was published of several networks whose predictions are averaged, in fractions of 1."""

    model_config = ConfigDict(extra="forbid", strict=True)

    networks: str
    top1: float
    top5: float


class Recipe(BaseModel):
    """What an experiment says about itself, see `conf/experiment`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    source: str
    published: dict[str, Published]
    """By metric, `test/top1` or, of ten views, `ten_crop/top1`; empty where nothing was published."""
    ablations: dict[str, Ablation] = {}
    """By job of a sweep."""
    ensembles: list[Ensemble] = []
