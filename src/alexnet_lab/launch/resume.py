"""The configuration of a continued run: the recorded one, with the settings that may change."""

from collections.abc import Iterable, Mapping
from typing import Any

from hydra import compose
from hydra.errors import MissingConfigException
from omegaconf import OmegaConf

from alexnet_lab import places
from alexnet_lab.command_line import override
from alexnet_lab.config.arguments import PATHS, make_defaults_absolute, rewritten
from alexnet_lab.config.by_device import values, with_values
from alexnet_lab.config.other_class import with_own_options
from alexnet_lab.errors import UserError
from alexnet_lab.runs.folders import portable

OF_THE_COMMAND_LINE = ("run", "resume", "folder", "overrides", "sweep_name")
FOUND = ("num_classes", "val_size")
MISSING = "nothing"


def continued(recorded: dict[str, Any], overrides: list[str], folder: str) -> dict[str, Any]:
    """The recorded configuration with the changes that new overrides request.

    `folder` is where the run is now.

    Overrides that were recorded with the run are ignored. The recorded and the new ones are composed together, so that
    `trainer=ddp_cpu` keeps the recorded `trainer.max_epochs`.

    Raises:
        UserError: an override would change something else.
    """
    before = list(recorded["overrides"])
    # Older runs recorded paths relative to the home.
    known = {*_last_of_each_key(before), *rewritten(_last_of_each_key(before), places.home())}
    new = [text for text in _last_of_each_key(overrides) if text not in known and _key(text) not in OF_THE_COMMAND_LINE]
    if not new:
        return recorded
    replaced = {_key(text) for text in new}
    kept = [text for text in before if _key(text) not in replaced and _key(text) not in OF_THE_COMMAND_LINE]
    composed = _compose([*kept, *new, override("run", recorded["run"])], kept, recorded.get("sweep_name"), folder)
    composed = with_values(composed, values(recorded))  # those of the device on which the run began
    _keep_found(recorded, composed)
    _keep_default_paths(recorded, composed, {_key(text) for text in (*kept, *new)})
    heads = {_key(text).split(".")[0] for text in new}
    if not all(map(_may_change, heads)):
        _refuse_differences(recorded, composed)
    changed = {head: composed[head] for head in heads if _may_change(head)}
    return {**recorded, **changed, "overrides": [*kept, *new]}


def _last_of_each_key(overrides: list[str]) -> list[str]:
    """The last override of each key; a script and its user may both give one."""
    return list({_key(text): text for text in overrides}.values())


def _may_change(head: str) -> bool:
    """Whether a continued run may change this top-level key."""
    from alexnet_lab.config.schema import Effect, effect  # here, since it imports pydantic

    # A recipe sets more than its own key.
    return head in ("trainer", "callbacks") or (effect(head) is Effect.NONE and head != "recipe")


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~").partition("@")[0]


def _compose(overrides: list[str], recorded: list[str], sweep_name: str | None, folder: str) -> dict[str, Any]:
    try:
        config = compose("train", overrides)
    except MissingConfigException as error:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        if not any(text.startswith(f"{group}=") for text in recorded):
            raise
        raise UserError(
            f"the run was started with {group}={name}, which does not exist here; "
            "if it is from a folder of your own, name that again: --config-dir=FOLDER"
        ) from error
    config.folder, config.sweep_name = folder, sweep_name
    make_defaults_absolute(config)
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    settings = with_own_options({str(key): value for key, value in container.items()}, overrides)
    return portable(settings, folder)


def _keep_found(recorded: dict[str, Any], composed: dict[str, Any]) -> None:
    """Set what is null as recorded, where the images decided it when the run began."""
    for group in ("data", "model"):
        now, before = _node(composed, [group]), _node(recorded, [group])
        now |= {key: before[key] for key in FOUND if key in now and now[key] is None and key in before}


def _keep_default_paths(recorded: dict[str, Any], composed: dict[str, Any], overridden: Iterable[str]) -> None:
    """Set default paths as recorded: they may be in another home than this one."""
    # `data=NAME` does not name `data.dir`.
    named = [f"{key}." for key in overridden if "." in key or key in PATHS]
    for path in PATHS:
        *outer, last = path.split(".")
        before, now = _node(recorded, outer), _node(composed, outer)
        if last in before and last in now and not f"{path}.".startswith(tuple(named)):
            now[last] = before[last]


def _node(settings: dict[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """The settings below `keys`; empty where there are none."""
    for key in keys:
        inner = settings.get(key)
        settings = inner if isinstance(inner, dict) else {}
    return settings


def _refuse_differences(recorded: Mapping[str, Any], composed: Mapping[str, Any]) -> None:
    ours, theirs = dict(_leaves(recorded)), dict(_leaves(composed))
    differing = [
        f"{key} is {ours.get(key, MISSING)} in the recorded run, {theirs.get(key, MISSING)} here"
        for key in sorted(ours.keys() | theirs.keys())
        if ours.get(key, MISSING) != theirs.get(key, MISSING)
    ]
    if differing:
        raise UserError(
            "only trainer, logger, callbacks, checkpoints and hang_timeout may change in a continued run:\n"
            + "\n".join(differing[:6])
        )


def _leaves(settings: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in settings.items():
        path = f"{prefix}{key}"
        if not prefix and (key in OF_THE_COMMAND_LINE or _may_change(key)):
            continue
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}.")
        else:
            yield path, value
