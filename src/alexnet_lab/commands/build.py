"""From configuration nodes to objects, with every key and value checked against the target's signature first."""

import inspect
import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, get_type_hints

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

from alexnet_lab.commands.advice import did_you_mean
from alexnet_lab.errors import UserError

OURS = "alexnet_lab."
HYDRA_KEYS = ("_target_", "_partial_", "_convert_", "_recursive_", "_args_")


class CheckpointSettings(BaseModel):
    """What is kept of a run, see `conf/checkpoints`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    keep: bool
    every_minutes: Annotated[float, Field(gt=0)]


def build(settings: Mapping[str, Any], path: str, late: Iterable[str] = (), **more: Any) -> Any:
    """The object that the node `settings` describes, at `path` in the configuration.

    `more` are further arguments; `late` names those that a partial gets when it is called.

    Raises:
        UserError: a key that the target does not have, a value of another type, or one that the target refuses.
    """
    check(settings, path, {*late, *more})
    target = str(settings["_target_"])
    try:
        return instantiate(dict(settings), **more, _convert_="all")
    except InstantiationException as error:
        raise refusal(path, target, error.__cause__ or error) from error


def refusal(path: str, target: str, error: BaseException) -> BaseException:
    """What to raise when `target` raised `error`: a `UserError` where it is a library that refuses a value."""
    expected = (ValueError, TypeError, MisconfigurationException, ModuleNotFoundError)
    if isinstance(error, UserError) or target.startswith(OURS) or not isinstance(error, expected):
        return error
    return UserError(f"{path}: {error}")


def check(settings: Mapping[str, Any], path: str, late: Iterable[str] = ()) -> None:
    """Compare the keys and values of a node, and of the nodes in it, with what its target takes.

    Raises:
        UserError: see `build`.
    """
    target = str(settings.get("_target_", "")) if isinstance(settings, Mapping) else ""
    if not target:
        raise UserError(f"{path}: there is no _target_ that says what to make")
    parameters, hints = _signature(target, path)
    for key, value in settings.items():
        if key in HYDRA_KEYS:
            continue
        if key in late or (key not in parameters and not _takes_any(parameters)):
            known = [name for name in parameters if name not in late]
            raise UserError(
                f"{path}.{key}: {target} has no such option{did_you_mean(key, known)}\noptions: {', '.join(known)}"
            )
        if isinstance(value, Mapping) and "_target_" in value:
            check(value, f"{path}.{key}")
        elif key in hints:
            _check_value(value, hints[key], f"{path}.{key}")
    if not settings.get("_partial_"):
        _check_complete(parameters, {*settings, *late}, path)


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


class RunSettings(BaseModel):
    """The top level of a training run's configuration; the groups are checked against what they make."""

    model_config = ConfigDict(extra="forbid", strict=True)

    run: str
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    test_on: Literal["best", "last", "none"]
    compile: bool
    channels_last: bool
    hang_timeout: Annotated[float, Field(gt=0)] | None = None
    folder: str
    sweep_name: str | None = None
    overrides: list[str]
    recipe: Recipe | None
    resume: str | None
    checkpoints: CheckpointSettings
    model: dict[str, Any]
    data: dict[str, Any]
    optimizer: dict[str, Any]
    scheduler: dict[str, Any]
    trainer: dict[str, Any]
    callbacks: dict[str, Any]
    logger: dict[str, Any]


def check_run_settings(settings: Mapping[str, Any]) -> None:
    """Compare the top level of a run's configuration with `RunSettings`, and the trainer's values that go together.

    Raises:
        UserError: an unknown key, a missing one, or a value that does not fit.
    """
    try:
        RunSettings.model_validate(settings)
    except ValidationError as error:
        detail = error.errors()[0]
        key = ".".join(str(part) for part in detail["loc"])
        if detail["type"] == "extra_forbidden":
            hint = did_you_mean(key, RunSettings.model_fields)
            raise UserError(f"there is no option {key!r}{hint}") from error
        raise UserError(f"{key}: {detail['input']!r} does not fit: {detail['msg']}") from error
    _check_trainer(settings["trainer"])


def _check_trainer(trainer: Mapping[str, Any]) -> None:
    accumulate = trainer.get("accumulate_grad_batches", 1)
    if not isinstance(accumulate, int) or accumulate < 1:
        raise UserError(f"trainer.accumulate_grad_batches must be a whole number of at least 1, got {accumulate!r}")
    if trainer.get("limit_train_batches") == 0:
        raise UserError("trainer.limit_train_batches=0 leaves nothing to train on")
    if trainer.get("fast_dev_run"):
        raise UserError("trainer.fast_dev_run records nothing; debug=fast_dev_run runs one batch of everything")


def check_origin(settings: Any, path: str, package: str) -> None:
    """Refuse a configuration from a checkpoint that names anything but the factories of our own `package`.

    What counts is where the named thing was defined: a name that merely begins with our package's leads anywhere, as
    `alexnet_lab.data.fashion_mnist_files.subprocess.run` does.

    Raises:
        UserError: a `_target_` from elsewhere, or one that this version does not have.
    """
    if isinstance(settings, Mapping):
        if "_target_" in settings:
            target = str(settings["_target_"])
            ours = target.startswith(f"{OURS}{package}.") and "._" not in target
            if not ours or _definition(_target(target, path)) != target:
                raise UserError(f"{path}: a checkpoint may not name {target}")
        for key, value in settings.items():
            check_origin(value, f"{path}.{key}", package)
    elif isinstance(settings, list):
        for index, value in enumerate(settings):
            check_origin(value, f"{path}[{index}]", package)


def _definition(found: Any) -> str:
    return f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', '')}"


def _target(name: str, path: str) -> Any:
    try:
        return get_object(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{path}._target_: there is no {name} ({error})") from error


def _signature(target: str, path: str) -> tuple[Mapping[str, inspect.Parameter], dict[str, Any]]:
    found = _target(target, path)
    try:
        hints = get_type_hints(found.__init__ if inspect.isclass(found) else found)
    except (NameError, TypeError):
        hints = {}
    return inspect.signature(found).parameters, hints


def _takes_any(parameters: Mapping[str, inspect.Parameter]) -> bool:
    return any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())


def _check_complete(parameters: Mapping[str, inspect.Parameter], given: set[str], path: str) -> None:
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    for name, parameter in parameters.items():
        if parameter.kind in named and parameter.default is inspect.Parameter.empty and name not in given:
            raise UserError(f"{path}.{name} is missing")


def _check_value(value: Any, hint: Any, path: str) -> None:
    try:
        adapter = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
    except (PydanticSchemaGenerationError, PydanticUserError):
        return
    try:
        # As JSON, since YAML has no tuples either: a list is right where a tuple is wanted.
        adapter.validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        # Of a type that YAML cannot write, as a tensor, pydantic says only that it cannot check it.
        reasons = list(
            dict.fromkeys(detail["msg"] for detail in error.errors() if detail["type"] != "needs_python_object")
        )
        raise UserError(f"{path}: {value!r} does not fit: {'; or '.join(reasons[:4])}") from error
