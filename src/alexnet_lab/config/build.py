"""Builds objects from configuration nodes, after checking every key and value against the target's signature."""

import inspect
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any, get_args, get_type_hints

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException

from alexnet_lab.config.advice import did_you_mean
from alexnet_lab.config.values import mismatch
from alexnet_lab.errors import UserError, WrongOption

OURS = "alexnet_lab."
HYDRA_KEYS = {"_target_": str, "_partial_": bool, "_convert_": Any, "_recursive_": bool, "_args_": list}
"""Hydra's own keys of a node, and their types."""
LIBRARIES = ("lightning.", "torch.")
"""Packages whose exceptions of any type count as a wrong value."""
REFUSALS = (ValueError, TypeError, RuntimeError, AssertionError, OSError, ImportError, MisconfigurationException)
"""Exceptions that mean a wrong value, also if raised by the user's classes."""
OUT_OF_MEMORY = re.compile(r"allocat|overflow", re.IGNORECASE)

logging.getLogger("hydra.utils").setLevel(logging.CRITICAL)  # a target that does not exist is reported below


def build(settings: Mapping[str, Any], path: str, kind: type = object, **more: Any) -> Any:
    """Build the object that the node `settings` at `path` describes; `more` are additional arguments.

    Raises:
        UserError: an unknown key, a value of the wrong type, a value that the target rejects, or an object that is
            not a `kind`.
    """
    check(settings, path, more, kind)
    made = _instantiated(settings, path, more)
    _check_kind(made, path, settings, kind)
    return made


def build_factory(settings: Mapping[str, Any], path: str, late: Sequence[str], kind: type) -> Callable[..., Any]:
    """A factory of the object that the node describes; it takes the `late` arguments, in this order.

    Raises:
        UserError: see `build`; the factory raises it as well.
    """
    if isinstance(settings, Mapping) and settings.get("_partial_") is not True:
        raise UserError(f"{path}._partial_ must be true: the run itself passes {', '.join(late)}")
    check(settings, path, late, kind)
    partial = _instantiated(settings, path, {})

    def factory(*arguments: Any) -> Any:
        try:
            made = partial(**dict(zip(late, arguments, strict=True)))
        except Exception as error:
            raise refusal(path, str(settings["_target_"]), error) from error
        _check_kind(made, path, settings, kind)
        return made

    return factory


def _instantiated(settings: Mapping[str, Any], path: str, more: Mapping[str, Any]) -> Any:
    try:
        return instantiate(dict(settings), **more, _convert_="all")
    except InstantiationException as error:
        if error.__cause__ is None:  # a target that Hydra itself rejects, such as os.system
            raise UserError(f"{path}: {' '.join(str(error).split())}") from error
        raise refusal(path, str(settings["_target_"]), error.__cause__) from error


def refusal(path: str, target: str, error: BaseException) -> BaseException:
    """The exception to raise for an `error` of `target`: a `UserError` if a value is to blame rather than a defect."""
    if isinstance(error, UserError):
        return error
    too_large = isinstance(error, MemoryError | RuntimeError) and OUT_OF_MEMORY.search(str(error))
    refused = isinstance(error, REFUSALS) or target.startswith(LIBRARIES)
    if too_large or (refused and not target.startswith(OURS)):
        return UserError(f"{path}: {error}")
    return error


def check(settings: Mapping[str, Any], path: str, late: Iterable[str] = (), kind: type = object) -> None:
    """Check the keys and values of a node and of nested nodes against the signatures of their targets.

    `late` names arguments that are passed in addition; the target must build a `kind`.

    Raises:
        UserError: see `build`.
    """
    target = str(settings.get("_target_") or "") if isinstance(settings, Mapping) else ""
    if not target:
        raise UserError(f"{path}: _target_ is missing; it names the class or function to call")
    found = _target(target, path)
    if inspect.isclass(found) and not issubclass(found, kind):
        raise UserError(f"{path}: {target} is not a subclass of {kind.__name__}")
    if "_args_" in settings and _definition(found).startswith(OURS):
        raise UserError(f"{path}._args_: {target} takes options by name")
    parameters, hints = _signature(found, target, path)
    if missing := [name for name in late if name not in parameters and not _takes_any(parameters)]:
        raise UserError(f"{path}: {target} does not take {', '.join(missing)}, which the run itself passes")
    known, hints = [name for name in parameters if name not in late], {**hints, **HYDRA_KEYS}
    for key, value in settings.items():
        if key in late or (key not in (*parameters, *HYDRA_KEYS) and not _takes_any(parameters)):
            advice = f"{did_you_mean(str(key), known)}\noptions: {', '.join(known)}"
            raise WrongOption(f"{path}.{key}: {target} has no such option{advice}", path, str(key), known)
        if isinstance(value, Mapping) and "_target_" in value:
            check(value, f"{path}.{key}", kind=_kind_of(hints.get(key)))
        elif key in hints and (reason := mismatch(value, hints[key])):
            raise WrongOption(f"{path}.{key}: {value!r} does not fit: {reason}", path, key, known)
    if not settings.get("_partial_"):
        _check_complete(parameters, {*settings, *late}, path)


def _check_kind(made: Any, path: str, settings: Mapping[str, Any], kind: type) -> None:
    if not isinstance(made, kind):
        raise UserError(f"{path}: {settings['_target_']} makes {type(made).__name__}, not {kind.__name__}")


def _kind_of(hint: Any) -> type:
    """The class that a hint such as `Profiler | str | None` requires of a node; `object` if there are several."""
    wanted = {one for one in (get_args(hint) or (hint,)) if inspect.isclass(one) and one not in (str, type(None))}
    (kind,) = wanted if len(wanted) == 1 else {object}
    return kind if not getattr(kind, "_is_protocol", False) or getattr(kind, "_is_runtime_protocol", False) else object


def check_origin(settings: Any, path: str, package: str, kind: type, modules: Sequence[str] = ()) -> None:
    """Refuse a configuration from a checkpoint that names anything but factories of our own `package`.

    The place of the definition counts: a name inside our package can lead anywhere, as in
    `alexnet_lab.data.fashion_mnist_files.subprocess.run`. A factory makes a `kind`, and does nothing else: other
    functions of the package write files.

    Of `modules`, which are the user's, the classes that they define are also allowed, and the functions that they
    define and annotate with the result `kind`. What they import is not.

    Raises:
        UserError: a `_target_` from elsewhere, or one that does not exist in this version.
    """
    if isinstance(settings, Mapping):
        if "_target_" in settings:
            target = str(settings["_target_"])
            if not _is_allowed(target, path, kind, f"{OURS}{package}.", tuple(f"{module}." for module in modules)):
                remedy = f"modules=NAME allows the classes of a module, and its functions annotated -> {kind.__name__}"
                raise UserError(f"{path}: a checkpoint may not name {target}; {remedy}")
        for key, value in settings.items():
            check_origin(value, f"{path}.{key}", package, kind, modules)
    elif isinstance(settings, list):
        for index, value in enumerate(settings):
            check_origin(value, f"{path}[{index}]", package, kind, modules)


def _is_allowed(target: str, path: str, kind: type, ours: str, users: tuple[str, ...]) -> bool:
    if not target.startswith((ours, *users)):
        return False
    found = _target(target, path)
    definition = _definition(found)
    made = found if inspect.isclass(found) else _hints(found).get("return")
    makes_kind = inspect.isclass(made) and issubclass(made, kind)
    if definition.startswith(OURS):
        return makes_kind and definition.startswith(ours) and "._" not in definition
    return definition.startswith(users) and (makes_kind or inspect.isclass(found))


def _definition(found: Any) -> str:
    return f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', '')}"


def _target(name: str, path: str) -> Any:
    try:
        found = get_object(name)
    except Exception as error:  # a user's module may raise anything on import
        hint = _suggestion(name) or f" ({' '.join(str(error).split())})"
        if "." in name and _is_missing(name.partition(".")[0]):
            hint += "; the folder of a module of your own must be on PYTHONPATH"
        raise UserError(f"{path}._target_: there is no {name}{hint}") from error
    if isinstance(found, ModuleType) or not callable(found):
        raise UserError(f"{path}._target_: {name} is not a class or a function")
    return found


def _is_missing(package: str) -> bool:
    try:
        return find_spec(package) is None
    except (ValueError, ImportError):  # not a name
        return False


def _suggestion(name: str) -> str:
    """A hint with a similar name in the same module."""
    module, _, last = name.rpartition(".")
    try:
        return did_you_mean(last, vars(import_module(module)))
    except Exception:  # the module does not exist or cannot be imported
        return ""


def _signature(found: Any, target: str, path: str) -> tuple[Mapping[str, inspect.Parameter], dict[str, Any]]:
    try:
        return inspect.signature(found).parameters, _hints(found.__init__ if inspect.isclass(found) else found)
    except ValueError as error:  # some classes written in C
        raise UserError(f"{path}._target_: the options of {target} cannot be determined") from error


def _hints(function: Any) -> dict[str, Any]:
    """Its type hints; none if they name something that cannot be found."""
    try:
        return get_type_hints(function)
    except (NameError, TypeError, AttributeError, SyntaxError):
        return {}


def _takes_any(parameters: Mapping[str, inspect.Parameter]) -> bool:
    return any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())


def _check_complete(parameters: Mapping[str, inspect.Parameter], given: set[str], path: str) -> None:
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    for name, parameter in parameters.items():
        if parameter.kind in named and parameter.default is inspect.Parameter.empty and name not in given:
            raise UserError(f"{path}.{name} is missing")
