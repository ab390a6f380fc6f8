"""A training run's configuration: its top level, and the ranges of the trainer's values that lightning leaves open."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo

from alexnet_lab.config.advice import did_you_mean
from alexnet_lab.config.strategies import works_here
from alexnet_lab.errors import UserError


class CheckpointSettings(BaseModel):
    """What is kept of a run, see `conf/checkpoints`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    keep: bool
    every_minutes: Annotated[float, Field(gt=0)]


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


def _not_zero(value: Any) -> Any:
    """Of a limit, a number of batches or a fraction of them; numbers below 0 lightning refuses."""
    if type(value) in (int, float) and value == 0:
        raise ValueError("0 leaves nothing to do")
    return value


def _off(value: Any) -> Any:
    if value:
        raise ValueError("it records nothing; debug=fast_dev_run runs one batch of everything")
    return value


def _works_here(value: Any, others: ValidationInfo) -> Any:
    return works_here(value, others.data.get("accelerator"))


def _without_xla(value: Any) -> Any:
    """Of a profiler; lightning prints a traceback where there is no XLA."""
    if value == "xla":
        raise ValueError("choose simple, advanced or pytorch")
    return value


class TrainerSettings(BaseModel):
    """What lightning's Trainer does not check by itself; all other values, and the types, are left to `build.check`."""

    model_config = ConfigDict(extra="allow", strict=True)

    accelerator: Any = "auto"
    accumulate_grad_batches: Annotated[int, Field(ge=1)] = 1
    check_val_every_n_epoch: Annotated[int, Field(ge=1)] | None = 1
    gradient_clip_val: Annotated[float, Field(ge=0)] | None = None
    log_every_n_steps: Annotated[int, Field(ge=0)] | None = None
    min_epochs: Annotated[int, Field(ge=0)] | None = None
    min_steps: Annotated[int, Field(ge=0)] | None = None
    limit_train_batches: Annotated[Any, AfterValidator(_not_zero)] = None
    val_check_interval: Annotated[Any, AfterValidator(_not_zero)] = None
    fast_dev_run: Annotated[Any, AfterValidator(_off)] = None
    barebones: Annotated[Any, AfterValidator(_off)] = None
    strategy: Annotated[Any, AfterValidator(_works_here)] = "auto"
    profiler: Annotated[Any, AfterValidator(_without_xla)] = None


class RunSettings(BaseModel):
    """The top level of a training run's configuration; the groups are checked against what they make."""

    model_config = ConfigDict(extra="forbid", strict=True)

    run: str
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    test_on: Literal["best", "last", "none"]
    compile: bool
    channels_last: bool
    hang_timeout: Annotated[float, Field(gt=0)] | None = None
    folder: str | None = None
    """Recorded by older versions only."""
    sweep_name: str | None = None
    overrides: list[str]
    recipe: Recipe | None
    resume: str | None
    checkpoints: CheckpointSettings
    model: dict[str, Any]
    data: dict[str, Any]
    optimizer: dict[str, Any]
    scheduler: dict[str, Any]
    trainer: TrainerSettings
    callbacks: dict[str, Any]
    logger: dict[str, Any]


def check_run_settings(settings: Mapping[str, Any]) -> None:
    """Compare a run's configuration with `RunSettings`; its groups are compared with what they make by `build`.

    Raises:
        UserError: an unknown key, a missing one, a value that does not fit, or a number that is not finite.
    """
    _validate(RunSettings, settings)
    _check_finite(settings, "")


def check_trainer(settings: Mapping[str, Any]) -> None:
    """Compare the values of the group `trainer` with `TrainerSettings`; raises UserError as `check_run_settings`."""
    _validate(TrainerSettings, settings, "trainer")
    _check_finite(settings, "trainer")


def _validate(schema: type[BaseModel], settings: Mapping[str, Any], *path: str) -> None:
    try:
        schema.model_validate(settings)
    except ValidationError as error:
        detail = error.errors()[0]
        key = ".".join(map(str, (*path, *detail["loc"])))
        if detail["type"] == "extra_forbidden":
            raise UserError(f"there is no option {key!r}{did_you_mean(key, schema.model_fields)}") from error
        if detail["type"] == "missing":
            raise UserError(f"{key} is missing") from error
        reason = detail["msg"].removeprefix("Value error, ")
        raise UserError(f"{key}: {detail['input']!r} does not fit: {reason}") from error


def _check_finite(value: Any, path: str) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check_finite(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for item in value:
            _check_finite(item, path)
    elif isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{path}: {value} is not a finite number")
