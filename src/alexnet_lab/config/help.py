"""The output of `--help`: the text in the command's primary config, its keys, and its groups with their options.

Hydra's own help composes the whole configuration and copies the configuration sources of all installed plugins for
each listed group. Here nothing is composed and no plugin is loaded.
"""

import os
import textwrap
from collections.abc import Iterable
from pathlib import Path
from string import Template

from omegaconf import DictConfig, OmegaConf

from alexnet_lab.config.flags import get_args_parser
from alexnet_lab.config.meanings import read_keys
from alexnet_lab.config.primary import groups_of
from alexnet_lab.errors import UserError

WIDTH = 118
"""Characters per line."""


def requested_help(conf: Path, config_name: str) -> str | None:
    """The help of the command whose primary config is `conf/<config_name>.yaml`; None to leave the help to Hydra.

    `--config-dir` adds the groups of another folder, relative to the working folder. Overrides are ignored, so help is
    also printed for a line with a wrong option. `--config-path` and `--config-name` ask for the help of another primary
    config, which Hydra must compose.

    Raises:
        UserError: the folder of `--config-dir` does not exist.
    """
    arguments = get_args_parser().parse_args()
    if not arguments.help or arguments.config_path or arguments.config_name:
        return None
    added = arguments.config_dir and os.path.expanduser(arguments.config_dir)
    if added and not os.path.isdir(added):
        raise UserError(f"--config-dir={added}: there is no such folder")
    primary = conf / f"{config_name}.yaml"
    own = groups_of(primary)
    groups = [found for found in _groups(conf) if found[0] in own] + [*(_groups(added) if added else [])]
    return _text(primary, _listed(groups))


def _text(primary: Path, groups: str) -> str:
    config = OmegaConf.load(primary)
    assert isinstance(config, DictConfig)
    return Template(config.hydra.help.template).substitute(APP_CONFIG_GROUPS=groups, CONFIG=list_keys(primary))


def list_keys(primary: Path) -> str:
    """One entry `key=default  meaning` per key of the file; for a computed default, the meaning describes it."""
    keys = read_keys(primary)
    texts = [f"{key.name}={'...' if '${' in key.default else key.default}" for key in keys]
    column = max(map(len, texts)) + 2
    wrap = textwrap.TextWrapper(WIDTH, subsequent_indent=" " * column, break_long_words=False, break_on_hyphens=False)
    return "".join(f"{wrap.fill(text.ljust(column) + key.meaning)}\n" for text, key in zip(texts, keys, strict=True))


def _listed(groups: Iterable[tuple[str, list[str]]]) -> str:
    """One line `group: option, option` per group."""
    options: dict[str, set[str]] = {}
    for group, names in groups:
        options.setdefault(group, set()).update(names)
    return "".join(f"{group}: {', '.join(sorted(options[group]))}\n" for group in sorted(options))


def _groups(conf: Path | str) -> Iterable[tuple[str, list[str]]]:
    """The groups in a folder and their options, without Hydra's own groups."""
    for folder, _, files in os.walk(conf, followlinks=True):
        group = Path(folder).relative_to(conf)
        names = [Path(file).stem for file in files if file.endswith(".yaml")]
        if names and group.parts and group.parts[0] != "hydra":
            yield group.as_posix(), names
