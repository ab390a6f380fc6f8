"""The schema of a recipe: the description of an experiment, and the published metrics."""

from pydantic import BaseModel, ConfigDict, Field


class Published(BaseModel):
    """A published metric."""

    model_config = ConfigDict(extra="forbid", strict=True)

    value: float
    deviation: float | None = None
    """Standard deviation over the runs of the source."""
    range: tuple[float, float] | None = Field(default=None, strict=False)
    """Lowest and highest value over the runs of the source."""


class Ablation(BaseModel):
    """The published effect of leaving a part out."""

    model_config = ConfigDict(extra="forbid", strict=True)

    published: dict[str, float] = {}
    """Changes of `top1` and `top5`, fractions of 1."""
    note: str = ""


class Ensemble(BaseModel):
    """The published accuracy of several averaged networks, in fractions of 1."""

    model_config = ConfigDict(extra="forbid", strict=True)

    networks: str
    top1: float
    top5: float


class Recipe(BaseModel):
    """The description of an experiment, see `conf/experiment`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    source: str
    published: dict[str, Published]
    """By metric: `test/top1`, or `ten_crop/top1` for ten views; empty if nothing was published."""
    ablations: dict[str, Ablation] = {}
    """By job of the ablation sweep."""
    ensembles: list[Ensemble] = []
