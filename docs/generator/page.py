"""Writes docs/configuration.md: every key of every command and group, with its type, default and meaning.

`make docs` runs it. Keys, defaults and meanings are those of the files in `conf` (see `alexnet_lab.config.meanings`),
types those of the classes and functions that the files name. A key without a meaning or a type is an error.
"""

import ast
import inspect
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from typing import Any

from docs.generator.kinds import hints_of
from docs.generator.links import anchor
from docs.generator.markdown import REFERENCE, Row, formatted, row_of, sentence, table, title_of
from hydra.utils import get_object
from omegaconf import OmegaConf

from alexnet_lab.commands.program import COMMANDS
from alexnet_lab.config.meanings import Key, read_groups, read_keys
from alexnet_lab.config.objective import LossSettings
from alexnet_lab.config.schema import CheckpointSettings, RunSettings
from alexnet_lab.launch.search import Settings as SearchSettings
from hydra_plugins.alexnet_lab_launcher.launcher import ProcessLauncherConfig
from hydra_plugins.alexnet_lab_launcher.sweeper import JobsSweeperConfig

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"
PAGE = ROOT / "docs/configuration.md"
PLUGINS = {
    "hydra/launcher": "how the jobs of a sweep are started; by default `processes`",
    "hydra/sweeper": "which jobs a sweep has; by default every combination of the values on the command line",
    "hydra/sweeper/sampler": "how a search proposes values",
    "hydra/sweeper/pruner": "how a search ends trials early; by default it does not",
}
IN_CODE: dict[str, dict[str, type]] = {
    "hydra/launcher": {"processes": ProcessLauncherConfig},
    "hydra/sweeper": {"jobs": JobsSweeperConfig},
}
"""Choices that are registered by the project's plugin for Hydra and have no file."""
SCHEMAS = {"checkpoints": CheckpointSettings, "hydra/sweeper/optuna": SearchSettings}
"""Types of choices without a `_target_` that has a signature."""
WITHOUT_KEYS = ("experiment", "sweep", "debug")
"""Groups whose choices set the keys of other groups."""
INTRO = """\
# Configuration

Every key of every command, with its type, default and meaning. `make docs` writes this page from the files in
[`conf/`](../conf) and the signatures of the classes and functions that they name.

- `KEY=VALUE` sets a key: `python src/train.py optimizer.lr=0.1`, installed `alexnet-lab train optimizer.lr=0.1`.
  Keys of a group start with its name.
- `GROUP=CHOICE` takes another file of a group: `model=lenet`. Each file is described below and linked.
- `+GROUP.KEY=VALUE` adds an option of a class that its file does not list: `+trainer.min_epochs=2`.
- `--cfg job` prints the composed configuration, `--help` the keys of the command.
- Defaults: "as" another key takes the value of that key; "computed" is described by the meaning; without a key that is
  "required", the command ends with an error.
- Quoting, paths and sweeps are described in the [guide to training](training.md#command-line).
"""


def page() -> str:
    """The content of docs/configuration.md.

    Raises:
        ValueError: a key has no meaning, several meanings to choose from, or no type.
    """
    groups = [*read_groups(CONF / "train.yaml"), *(Key(name, "", meaning) for name, meaning in PLUGINS.items())]
    parts = [INTRO, _contents(groups), "## Commands\n"]
    parts += [_command(command) for command in COMMANDS]
    parts.append("## Groups\n")
    parts += [_group(group) for group in groups]
    return "\n".join(parts)


def _contents(groups: Iterable[Key]) -> str:
    links = [
        " · ".join(f"[{name}](#{anchor(name)})" for name in names)
        for names in (COMMANDS, [group.name for group in groups])
    ]
    return f"Commands: {links[0]}\n\nGroups: {links[1]}\n"


# Commands.


def _command(command: str) -> str:
    path = CONF / f"{command}.yaml"
    groups = [f"[`{group.name}={group.default}`](#{anchor(group.name)})" for group in read_groups(path)]
    text = f"### {command}\n\n{formatted(title_of(path))}\n"
    if groups:
        text += f"\nGroups, with their defaults: {', '.join(groups)}.\n"
    kinds = _kinds_of(command)
    rows = [row_of(key, key.meaning, kinds.get(key.name) or _recorded(key.name)) for key in read_keys(path)]
    return f"{text}\n{table(rows)}"


def _kinds_of(command: str) -> Mapping[str, Any]:
    module = import_module(f"alexnet_lab.commands.{command}")
    of_loss = {f"loss.{name}": hint for name, hint in hints_of(LossSettings).items()}
    return {**hints_of(RunSettings), **of_loss, **getattr(module, "KINDS", {})}


def _recorded(name: str) -> Any:
    """The type of a key that overrides the recorded one: `data.dir` of evaluate.py; null leaves it as recorded."""
    group, _, key = name.partition(".")
    return _choice_kinds(group, _default_choice(group))[key] | None


def _default_choice(group: str) -> str:
    return next(one.default for one in read_groups(CONF / "train.yaml") if one.name == group)


# Groups.


def _group(group: Key) -> str:
    by_default = f" By default `{group.default}`." if group.default not in ("", "null") else ""
    text = f"### {group.name}\n\n{sentence(group.meaning)}{by_default}\n\n"
    choices = _choices(group.name)
    text += "| choice | description |\n|---|---|\n"
    for choice in choices:
        path = CONF / group.name / f"{choice}.yaml"
        name = f"[`{choice}`](../conf/{group.name}/{choice}.yaml)" if path.exists() else f"`{choice}`"
        text += f"| {name} | {formatted(_title(group.name, choice))} |\n"
    if group.name not in WITHOUT_KEYS:
        text += "".join(f"\n{one}" for one in _tables(group, choices))
    return text


def _choices(group: str) -> list[str]:
    return sorted({path.stem for path in (CONF / group).glob("*.yaml")} | {*IN_CODE.get(group, {})})


def _title(group: str, choice: str) -> str:
    if choice in IN_CODE.get(group, {}):
        return " ".join((IN_CODE[group][choice].__doc__ or "").split())
    return title_of(CONF / group / f"{choice}.yaml")


def _tables(group: Key, choices: Sequence[str]) -> Iterator[str]:
    """A table of the keys that several choices share, and one of the other keys of each choice."""
    shared: dict[tuple[str, str, str], dict[str, Row]] = defaultdict(dict)
    for choice in choices:
        for row in _rows(group, choice):
            shared[row.name, row.kind, row.meaning][choice] = row
    common = [rows for rows in shared.values() if len(rows) > 1]
    if common:
        merged = []
        for rows in common:
            row = next(iter(rows.values()))
            merged.append(Row(row.name, row.kind, _defaults(rows, len(choices)), row.meaning))
        yield "Keys of several choices:\n\n" + table(merged)
    for choice in choices:
        own = [rows[choice] for rows in shared.values() if [*rows] == [choice]]
        if own:
            yield f"Keys of `{group.name}={choice}`{' alone' if common else ''}:\n\n" + table(own)


def _defaults(rows: Mapping[str, Row], choices: int) -> str:
    """One default for all choices, or by default the choices that have it."""
    by_default: dict[str, list[str]] = defaultdict(list)
    for choice, row in rows.items():
        by_default[row.default].append(choice)
    if len(by_default) == 1 and len(rows) == choices:
        return next(iter(by_default))
    return "<br>".join(f"{default} {', '.join(names)}" for default, names in by_default.items())


def _rows(group: Key, choice: str) -> list[Row]:
    if choice in IN_CODE.get(group.name, {}):
        return list(_rows_in_code(group.name, IN_CODE[group.name][choice]))
    kinds = _choice_kinds(group.name, choice)
    keys = {name: key for path in _files(group.name, choice) for name, key in _keys(path).items()}
    head = f"{group.name.replace('/', '.')}."
    return [row_of(key, _meaning(group, choice, key.name), kinds[key.name], head) for key in keys.values()]


@cache
def _keys(path: Path) -> dict[str, Key]:
    return {key.name: key for key in read_keys(path)}


@cache
def _loaded(path: Path) -> Any:
    return OmegaConf.load(path)


def _files(group: str, choice: str) -> list[Path]:
    """The file of a choice, after those in its group that it is based on."""
    path = CONF / group / f"{choice}.yaml"
    if not path.exists():  # of a plugin that may not be installed
        return []
    bases = _loaded(path).get("defaults", [])
    names = [base for base in bases if isinstance(base, str) and base != "_self_"]
    return [*(file for name in names for file in _files(group, name)), path]


def _meaning(group: Key, choice: str, name: str) -> str:
    """The comment of the file, else of those that it is based on, of the group's default, or of the only other one."""
    files = _files(group.name, choice)[::-1]
    if group.default:
        files += _files(group.name, group.default.strip("[]"))
    for path in files:
        if name in _keys(path) and _keys(path)[name].meaning:
            return _keys(path)[name].meaning
    paths = [path for path in sorted((CONF / group.name).glob("*.yaml")) if name in _keys(path)]
    others = {_keys(path)[name].meaning for path in paths} - {""}
    if len(others) != 1:
        raise ValueError(
            f"{files[0].relative_to(CONF.parent)}: {name} has {len(others)} meanings; add one behind its value"
        )
    return others.pop()


def _rows_in_code(group: str, settings: type) -> Iterator[Row]:
    """The fields of a dataclass; the string below a field is its meaning."""
    body = ast.parse(dedent(inspect.getsource(settings))).body[0].body  # type: ignore[attr-defined]
    below = {
        one.target.id: " ".join(ast.literal_eval(text.value).split())
        for one, text in pairwise(body)
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name) and isinstance(text, ast.Expr)
    }
    made = settings()
    for name, kind in hints_of(settings).items():
        if name != "_target_":
            value = getattr(made, name)
            default = "null" if value is None else str(value).lower()
            yield row_of(Key(name, default, ""), below.get(name, ""), kind, f"{group.replace('/', '.')}.")


def _choice_kinds(group: str, choice: str) -> dict[str, Any]:
    """The types of the keys of a choice: those of the signature, or as far as there is none, of the values."""
    values: Any = OmegaConf.to_container(OmegaConf.merge(*map(_loaded, _files(group, choice))))
    schema = SCHEMAS.get(group) or SCHEMAS.get(f"{group}/{choice}")
    return dict(_kinds_in(values, "", schema))


def _kinds_in(node: Mapping[str, Any], above: str, schema: Any) -> Iterator[tuple[str, Any]]:
    found = schema or ("_target_" in node and get_object(node["_target_"]))
    hints = hints_of(found) if found else {}
    for key, value in node.items():
        if isinstance(value, Mapping) and key not in hints:
            yield from _kinds_in(value, f"{above}{key}.", None)
        found = REFERENCE.fullmatch(str(value))
        if key not in hints and found:  # the type of the other key
            other, _, name = found[1].partition(".")
            hints[key] = _choice_kinds(other, _default_choice(other))[name]
        yield f"{above}{key}", hints.get(key, type(value))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"written: {PAGE}")
