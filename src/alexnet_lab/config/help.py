"""The output of `--help`: the text in the command's primary config, and the groups of the configuration folders.

Hydra's own help composes the whole configuration and copies the configuration sources of all installed plugins for
each listed group. Here nothing is composed and no plugin is loaded.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template

from omegaconf import DictConfig, OmegaConf

from alexnet_lab.config.flags import get_args_parser
from alexnet_lab.errors import UserError


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
    added = arguments.config_dir
    if added and not os.path.isdir(added):
        raise UserError(f"--config-dir={added}: there is no such folder")
    return _text(conf / f"{config_name}.yaml", list_groups([conf, *([added] if added else [])]))


def _text(primary: Path, groups: str) -> str:
    config = OmegaConf.load(primary)
    assert isinstance(config, DictConfig)
    return Template(config.hydra.help.template).substitute(APP_CONFIG_GROUPS=groups)


def list_groups(folders: Sequence[Path | str]) -> str:
    """One line `group: option, option` per group in `folders`, without Hydra's own groups."""
    options: dict[str, set[str]] = {}
    for group, names in (found for folder in folders for found in _groups(folder)):
        options.setdefault(group, set()).update(names)
    return "".join(f"{group}: {', '.join(sorted(options[group]))}\n" for group in sorted(options))


def _groups(conf: Path | str) -> Iterable[tuple[str, list[str]]]:
    for folder, _, files in os.walk(conf, followlinks=True):
        group = Path(folder).relative_to(conf)
        names = [Path(file).stem for file in files if file.endswith(".yaml")]
        if names and group.parts and group.parts[0] != "hydra":
            yield group.as_posix(), names
