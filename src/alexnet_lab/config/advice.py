"""Turns errors of Hydra and OmegaConf into messages that name the mistake and the remedy."""

import difflib
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from alexnet_lab.command_line import install
from alexnet_lab.config import arguments, retyped
from alexnet_lab.config.primary import groups_of
from alexnet_lab.errors import UserError, printable_lines

AMBIGUOUS = re.compile(r"Ambiguous value for argument '(?P<argument>.*?)'\n1\. ", re.DOTALL)
UNKNOWN_OPTION = re.compile(r"Could not (?:find|load) '(?P<group>[^']+)/(?P<option>[^'/]*)'")
NOT_A_NAME = re.compile(r"Config group override must be a string or a list|argument of type '\w+' is not iterable")
NO_NAMES = re.compile(r"^$|(^|[\[,])\s*(null|-?[\d.]+|true|false)\s*($|[\],])", re.IGNORECASE)
"""Values of a group that contain something other than names."""
CHOSEN_TWICE = re.compile(r"Multiple values for (?P<group>[^. ]+)\.")
DANGLING = re.compile(r"Interpolation key '(?P<key>[^']+)' not found")
LONGEST_LINE = 240
EXTRAS = {"submitit_slurm": "slurm", "submitit_local": "slurm", "ray": "ray"}
"""The extra of pyproject.toml that installs a plugin of Hydra."""
ELSEWHERE = {
    **dict.fromkeys(("learning_rate", "learningrate"), "lr"),
    **dict.fromkeys(("gpus", "num_gpus", "n_gpus", "nproc"), "devices"),
    **dict.fromkeys(("epochs", "num_epochs", "n_epochs", "e"), "max_epochs"),
    **dict.fromkeys(("bs", "batch", "b"), "batch_size"),
    **dict.fromkeys(("arch", "a"), "model"),
    "lrn": "norm",
    "class_num": "num_classes",
    **dict.fromkeys(("amp", "fp16", "half"), "precision"),
    **dict.fromkeys(("num_workers", "n_workers", "j"), "workers"),
    **dict.fromkeys(("name", "run_name", "exp_name"), "run"),
    **dict.fromkeys(("optim", "opt"), "optimizer"),
}
"""Names of our options in other programs and older versions."""
NO_KEY = object()
FORCED = re.compile(r"(?<=not supported: ')\+\+(?P<rest>[^']*)")
THERE_ALREADY = re.compile(r"Could not append to config. An item is already at '(?P<key>[^']*)'")
DELETED = re.compile(r"Could not delete (?:from config\. )?(?:The value of )?'(?P<key>[^'=]*)")
UNKNOWN_GROUP = re.compile(r"Could not override '(?P<group>[^']*)'\.\s*\n?.*No match in the defaults list", re.DOTALL)


def advice(error: BaseException, conf: str, command: str) -> str:
    """One or a few lines for `error` of the `command`; `conf` is the folder of the configuration groups."""
    for cause in _causes(error, hidden=True):
        if isinstance(cause, UserError):
            return printable_lines(str(cause))  # may quote a file
        if isinstance(cause, OverrideParseException):
            return retyped.unreadable(cause.override or "", str(cause.message).splitlines()[0], command)
        if isinstance(cause, ConfigKeyError | ConfigAttributeError) and isinstance(cause.parent_node, DictConfig):
            return _unknown_key(str(cause.full_key), str(cause.key), cause.parent_node, conf, command)
    text = "\n".join(_message(cause) for cause in _causes(error))
    if match := AMBIGUOUS.search(text):
        return retyped.ambiguous(match["argument"], conf, command)
    if match := UNKNOWN_OPTION.search(text):
        return _unknown_option(match["group"], match["option"], conf, command)
    if NOT_A_NAME.search(text):
        return _not_a_name(conf, command)
    if match := CHOSEN_TWICE.search(text):
        return f"+{match['group']}: one is already chosen; to replace it, omit the +: {match['group']}=NAME"
    if match := FORCED.search(text):
        return f"{match[0]}: omit the ++: {match['rest']}"
    if match := THERE_ALREADY.search(text):
        return f"{match['key']} already exists; to change it, omit the +: {match['key']}=VALUE"
    if match := DELETED.search(text):
        return _not_deleted(match["key"], conf, command)
    if match := UNKNOWN_GROUP.search(text):
        group = match["group"]
        groups = _groups(conf)
        if group in groups:
            own: Any = OmegaConf.load(Path(conf, f"{command}.yaml"))
            if keys := ", ".join(f"{group}.{key}" for key in own.get(group) or ()):
                return f"this command takes only keys of {group}: {keys}"
            return f"this command has no {group}; --help lists its options"
        return f"there is no option group {group!r}{did_you_mean(group, groups)}; groups: {', '.join(groups)}"
    return "\n".join(dict.fromkeys(line[:LONGEST_LINE] for line in text.splitlines() if line.strip()))


def _not_deleted(key: str, conf: str, command: str) -> str:
    """The message for a key that cannot be removed with ~."""
    if nearest(key, conf, command) == key:
        return f"~{key}: {key} can be changed, but not removed"
    return f"~{key}: there is no option {key!r} to remove"


def _message(error: BaseException) -> str:
    """The error's message, preceded by its key, without OmegaConf's internals."""
    if not isinstance(error, OmegaConfBaseException) or not error.full_key:
        return str(error)
    reason = str(error.msg or error).splitlines()[0]
    if match := DANGLING.search(reason):
        return f"{error.full_key} refers to {match['key']}, which does not exist"
    return f"{error.full_key}: {reason}"


def _unknown_option(group: str, option: str, conf: str, command: str) -> str:
    if group.startswith("hydra/sweeper/"):
        return f"{group}={option}: there is no such {Path(group).name}\nchoose from: {', '.join(_options(group, conf))}"
    if group.startswith("hydra/"):
        remedy = f"; to install it: {install(EXTRAS[option])}" if option in EXTRAS else ""
        return f"{group}={option}: there is no such plugin{remedy}"
    options = _options(group, conf)
    close = _close_choices(option, options)
    default = re.search(rf"^  - {re.escape(group)}: (\w+)", Path(conf, f"{command}.yaml").read_text(), re.MULTILINE)
    meant = close[0] if len(close) == 1 else default[1] if default and default[1] in close else None
    hint = f", did you mean {meant}?" if meant else ""
    more = "; any other of torch: optimizer._target_=torch.optim.NAME" if group == "optimizer" else ""
    return f"{group}={option}: there is no such {group}{hint}\nchoose from: {', '.join(options)}{more}"


def _close_choices(option: str, options: Iterable[str]) -> list[str]:
    """The options that begin with `option`, ignoring case; if there are none, one that is very close."""
    lower = {name.lower(): name for name in options}
    word = option.lower()
    beginning = [word] if word in lower else [name for name in lower if name.startswith(word)]
    return [lower[name] for name in beginning or difflib.get_close_matches(word, lower, n=1, cutoff=0.75)]


def _not_a_name(conf: str, command: str) -> str:
    """The message for a group that was set to null or a number; Hydra does not report which group."""
    groups, taken = {*_groups(conf)} - {"hydra"}, groups_of(Path(conf, f"{command}.yaml"))
    for argument in sys.argv[1:]:
        group, _, value = argument.partition("=")
        if group in groups - {*taken} and NO_NAMES.search(value):
            return f"{argument}: this command takes only keys of {group}, as in {group}.KEY=...; --help lists them"
        if group in taken and NO_NAMES.search(value):
            return f"{argument}: {group} takes a name\nchoose from: {', '.join(_options(group, conf))}"
    return "an option group takes a name, as in model=lenet; --help lists the groups and their names"


def _groups(conf: str) -> list[str]:
    return sorted({path.name for folder in arguments.folders(conf) for path in folder.glob("*") if path.is_dir()})


def _options(group: str, conf: str) -> list[str]:
    return sorted({path.stem for folder in arguments.folders(conf) for path in Path(folder, group).glob("*.yaml")})


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """', did you mean ...?' if one of `words` is close to `word`, otherwise ''."""
    close = difflib.get_close_matches(word, list(words), n=1)
    return f", did you mean {close[0]}?" if close else ""


def _unknown_key(full: str, key: str, parent: DictConfig, conf: str, command: str) -> str:
    """The message for the missing key `full`, whose last part is `key`; `parent` is the composed node."""
    head = full.removesuffix(key)
    group = head.removesuffix(".")
    groups = groups_of(Path(conf, f"{command}.yaml"))
    if full in groups:
        return f"{full} is missing\nchoose from: {', '.join(_options(full, conf))}"
    if target := next((word for word in sys.argv if word.startswith(f"{group}._target_=")), None):
        return f"there is no option {full!r} in the file of the chosen {group}; for one of {target}, type +{full}=..."
    hint = _other_choices_hint(group, key, parent, groups, conf)
    if not hint and (meant := _closest_option(full, key, parent, head, groups)):
        hint = f", did you mean {meant}?"
    addition = f"; to add a new one, put a + in front: +{full}=..." if group in groups and not hint else ""
    return f"there is no option {full!r}{hint}\n`--cfg job` prints every option{addition}"


def nearest(word: str, conf: str, command: str) -> str:
    """The option of `command` named `word`, or the closest one: `trainer.max_epochs` for `epochs`; '' if none."""
    with initialize_config_dir(conf, version_base="1.3"):
        config = compose(command)
    node: Any = OmegaConf.to_container(config)
    for part in word.split("."):
        node = node.get(part, NO_KEY) if isinstance(node, dict) else NO_KEY
    groups = groups_of(Path(conf, f"{command}.yaml"))
    if node is not NO_KEY or word in groups:
        return word
    head, dot, key = word.rpartition(".")
    parent = OmegaConf.select(config, head) if head else config
    return _closest_option(word, key, parent, head + dot, groups) if isinstance(parent, DictConfig) else ""


def _other_choices_hint(group: str, key: str, parent: DictConfig, groups: Sequence[str], conf: str) -> str:
    """A hint if `key` is an option of other choices, or is itself a choice; otherwise ''."""
    if group in groups:
        if key in _options(group, conf):
            place = f" {group}.dir=FOLDER" if _declares(Path(conf, group, f"{key}.yaml"), "dir") else ""
            return f"; {key} is a choice: {group}={key}{place}"
        others = _choices_with(group, key, conf)
        init = "; any network starts a run with other weights by init=torchvision or init=CHECKPOINT"
        return f"; it belongs to {others}{init * (key == 'pretrained')}" if others else ""
    name = ELSEWHERE.get(key, key)
    if group or name in ("defaults", *parent, *groups, *_owners(parent)):
        return ""
    found = ((other, _choices_with(other, name, conf)) for other in groups)
    return next((f"; {other}.{name} is an option of {choices}" for other, choices in found if choices), "")


def _closest_option(full: str, key: str, parent: DictConfig, head: str, groups: Iterable[str]) -> str:
    """The option closest to the unknown one; '' if none is close."""
    names = {str(name) for name in parent} - {"hydra"}
    if head:
        return _closest(full, key, {name: f"{head}{name}" for name in names}, 0.6)
    owners = _owners(parent)
    near = "" if key in owners else _closest(full, key, {name: name for name in {*names, *groups}}, 0.6)
    return near or _closest(full, key, owners, 0.75)


def _closest(typed: str, key: str, names: Mapping[str, str], cutoff: float) -> str:
    """The full name of the closest option, or ''; never the typed one."""
    known = [name for name, full in names.items() if full != typed]
    if ELSEWHERE.get(key) in known:
        return names[ELSEWHERE[key]]
    close = difflib.get_close_matches(key, known, n=1, cutoff=cutoff)
    return names[close[0]] if close else ""


def _owners(root: DictConfig) -> dict[str, str]:
    """`lr` -> `optimizer.lr`: the options of the composed groups, except those that refer to another group."""
    raw: dict[Any, Any] = OmegaConf.to_container(root)  # type: ignore[assignment]
    groups = {head: node for head, node in raw.items() if head != "hydra" and isinstance(node, dict)}
    options = ((head, name, value) for head, node in groups.items() for name, value in node.items())
    return {str(name): f"{head}.{name}" for head, name, value in options if not str(value).startswith("${")}


def _choices_with(group: str, key: str, conf: str) -> str:
    """The choices of `group` that have the option `key`: `data=imagenet, data=imagenette`."""
    return ", ".join(
        f"{group}={path.stem}" for path in sorted(Path(conf, group).glob("*.yaml")) if _declares(path, key)
    )


def _declares(path: Path, key: str) -> bool:
    text = path.read_text()
    bases = re.findall(r"^  - ([a-z]\w*)$", text, re.MULTILINE)
    declared = re.search(rf"^{re.escape(key)}:", text, re.MULTILINE) is not None
    return declared or any(_declares(path.with_name(f"{base}.yaml"), key) for base in bases)


def _causes(error: BaseException | None, hidden: bool = False) -> Iterable[BaseException]:
    """`error` and its causes; `hidden`: also those that OmegaConf hides, such as errors of resolvers."""
    while error is not None:
        yield error
        error = error.__cause__ or (error.__context__ if hidden else None)
