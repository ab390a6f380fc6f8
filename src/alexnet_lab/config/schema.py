"""A training run's configuration: its keys, the ranges that lightning does not check, and what each key changes.

Imports neither torch nor lightning.
"""

import math
from collections.abc import Mapping
from enum import Enum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo
from pydantic.fields import FieldInfo

from alexnet_lab.config.advice import did_you_mean
from alexnet_lab.config.layer_settings import Layers, Patterns
from alexnet_lab.config.objective import LossSettings
from alexnet_lab.config.published import Recipe
from alexnet_lab.config.tune import TuneSettings
from alexnet_lab.errors import UserError


class Effect(Enum):
    """The effect of a setting on a run; stored in the metadata of its field, see `effect`."""

    RESULT = "the result of the run; every setting without another mark"
    SPEED = "where and how fast the run computes"
    NONE = "nothing of the result: names, places, loggers, progress"
    COPY = "nothing by itself: it repeats another setting"


class CheckpointSettings(BaseModel):
    """Which checkpoints are kept, see `conf/checkpoints`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    keep: bool
    every_minutes: Annotated[float, Field(gt=0)]


def _not_zero(value: Any) -> Any:
    """For a limit, a number or fraction of batches; lightning itself rejects negative numbers."""
    if type(value) in (int, float) and value == 0:
        raise ValueError("it must be above 0")
    return value


def _off(value: Any) -> Any:
    if value:
        raise ValueError("such a run records nothing; debug=fast_dev_run runs one batch of everything")
    return value


def _works_here(value: Any, others: ValidationInfo) -> Any:
    from alexnet_lab.config.strategies import works_here  # here, since it imports lightning

    return works_here(value, others.data.get("accelerator"))


def _without_xla(value: Any) -> Any:
    """For a profiler; lightning prints a traceback if XLA is not installed."""
    if value == "xla":
        raise ValueError("choose simple, advanced or pytorch")
    return value


def _compiles(value: Any) -> Any:
    if isinstance(value, bool) or value in ("reduce-overhead", "max-autotune", "cuda-graph"):
        return value
    raise ValueError("choose true, false, reduce-overhead, max-autotune or cuda-graph")


class ModelSettings(BaseModel):
    """The keys that `effect` must know; `build.check` checks the group."""

    model_config = ConfigDict(extra="allow")

    in_channels: Annotated[Any, Effect.COPY] = None
    num_classes: Annotated[Any, Effect.COPY] = None


class DataSettings(BaseModel):
    """The keys that `effect` must know, and defaults of those that older runs lack; `build.check` checks the group."""

    model_config = ConfigDict(extra="allow")

    dir: Annotated[Any, Effect.NONE] = None
    workers: Annotated[Any, Effect.NONE] = None
    eval_batch_size: Annotated[Any, Effect.NONE] = None
    seed: Annotated[Any, Effect.COPY] = None
    image_size: Annotated[Any, Effect.COPY] = None
    channels_last: Annotated[Any, Effect.COPY] = None
    transparency: Any = "white"
    unreadable: Any = "fail"
    mixup_alpha: Any = 0.0
    cutmix_alpha: Any = 0.0
    crop: Any = "centre"
    crop_padding: Any = 4
    flip: Any = 0.0
    rotation: Any = 0.0
    scaling: Any = 0.0
    jitter: Any = 0.0
    colour: Any = "off"
    colour_std: Any = 0.1
    colour_until_epoch: Any = None


class CallbackSettings(BaseModel):
    """The callbacks that do not influence training; `build.check` checks the group."""

    model_config = ConfigDict(extra="allow")

    progress: Annotated[Any, Effect.NONE] = None
    pictures: Annotated[Any, Effect.NONE] = None
    layer_statistics: Annotated[Any, Effect.NONE] = None


class TrainerSettings(BaseModel):
    """Values that lightning's Trainer does not check itself; `build.check` checks all others, and the types."""

    model_config = ConfigDict(extra="allow", strict=True)

    accelerator: Annotated[Any, Effect.SPEED] = "auto"
    devices: Annotated[Any, Effect.SPEED] = "auto"
    num_nodes: Annotated[Any, Effect.SPEED] = 1
    accumulate_grad_batches: Annotated[int, Field(ge=1), Effect.SPEED] = 1
    check_val_every_n_epoch: Annotated[int, Field(ge=1)] | None = 1
    gradient_clip_val: Annotated[float, Field(ge=0)] | None = None
    log_every_n_steps: Annotated[Annotated[int, Field(ge=0)] | None, Effect.NONE] = None
    min_epochs: Annotated[int, Field(ge=0)] | None = None
    min_steps: Annotated[int, Field(ge=0)] | None = None
    limit_train_batches: Annotated[Any, AfterValidator(_not_zero)] = None
    val_check_interval: Annotated[Any, AfterValidator(_not_zero)] = None
    fast_dev_run: Annotated[Any, AfterValidator(_off)] = None
    barebones: Annotated[Any, AfterValidator(_off)] = None
    strategy: Annotated[Any, AfterValidator(_works_here), Effect.SPEED] = "auto"
    profiler: Annotated[Any, AfterValidator(_without_xla), Effect.NONE] = None
    max_time: Annotated[Any, Effect.NONE] = None


class RunSettings(BaseModel):
    """The top level of a training run's configuration; the groups are checked against what they make.

    A new key is added here with its mark, a callback that leaves the training as it is in `CallbackSettings`.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    run: Annotated[str, Effect.NONE]
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    test_on: Literal["best", "last", "none"]
    compile: Annotated[
        bool | Literal["reduce-overhead", "max-autotune", "cuda-graph"], BeforeValidator(_compiles), Effect.SPEED
    ]
    channels_last: Annotated[bool, Effect.SPEED]
    matmul_precision: Literal["highest", "high", "medium", "torch"] | None = None
    """See `by_device.set_matmul_precision`; `torch` is that of older runs on a GPU."""
    hang_timeout: Annotated[Annotated[float, Field(gt=0)] | None, Effect.NONE] = None
    init: str | None = None
    """See `initial_weights`."""
    freeze: Patterns = []
    layers: Layers = None
    """See `layer_patterns`."""
    folder: Annotated[str | None, Effect.NONE] = None
    """Recorded by older versions only."""
    sweep_name: Annotated[str | None, Effect.NONE] = None
    overrides: Annotated[list[str], Effect.NONE]
    recipe: Annotated[Recipe | None, Effect.NONE]
    resume: Annotated[str | None, Effect.NONE]
    checkpoints: Annotated[CheckpointSettings, Effect.NONE]
    tune: TuneSettings | None = None
    model: ModelSettings
    data: DataSettings
    loss: LossSettings = LossSettings()
    optimizer: dict[str, Any]
    scheduler: dict[str, Any]
    trainer: Annotated[TrainerSettings, Effect.SPEED]
    """The mark is that of the group's choice, as in `trainer=ddp`; the keys below have their own."""
    callbacks: CallbackSettings
    logger: Annotated[dict[str, Any], Effect.NONE]


def effect(key: str) -> Effect:
    """The effect on a run of the setting `key`, dotted as in `trainer.precision`."""
    field = _field(key)
    return _mark(field) if field else Effect.RESULT


def default(key: str) -> Any:
    """The value that runs have which do not record `key`; None where none is known."""
    field = _field(key)
    return None if field is None or field.is_required() else field.default


def _field(key: str) -> FieldInfo | None:
    """The field of `key`, or the field above it that decides for all keys below; None where the schema has neither."""
    field: FieldInfo | None = None
    model: type[BaseModel] | None = RunSettings
    for part in key.split("."):
        if model is None or (field and _mark(field) in (Effect.NONE, Effect.COPY)):
            return field
        field = model.model_fields.get(part)
        kind = field.annotation if field else None
        model = kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None
    return field


def _mark(field: FieldInfo) -> Effect:
    return next((one for one in field.metadata if isinstance(one, Effect)), Effect.RESULT)


def check_run_settings(settings: Mapping[str, Any]) -> None:
    """Check a run's configuration against `RunSettings`; `build` checks the groups.

    Raises:
        UserError: an unknown or missing key, a wrong value, or a number that is not finite.
    """
    validate(RunSettings, settings)
    _check_finite(settings, "")


def check_trainer(settings: Mapping[str, Any]) -> None:
    """Check the group `trainer` against `TrainerSettings`; raises UserError, see `check_run_settings`."""
    validate(TrainerSettings, settings, "trainer")
    _check_finite(settings, "trainer")


def validate(schema: type[BaseModel], settings: Mapping[str, Any], *path: str) -> None:
    """Compare the node at `path` with `schema`; raises UserError as `check_run_settings`."""
    try:
        schema.model_validate(settings)
    except ValidationError as error:
        detail = error.errors()[0]
        key = ".".join(map(str, (*path, *detail["loc"])))
        if detail["type"] == "extra_forbidden":
            raise UserError(f"there is no option {key!r}{did_you_mean(key, schema.model_fields)}") from error
        if detail["type"] == "missing":
            raise UserError(f"{key} is missing") from error
        reason = detail["msg"].removeprefix("Value error, ").partition(" or instance of ")[0]
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
