"""Finds the file of `conf/experiment`, `conf/sweep` or `conf/debug` that sets an option that does not fit.

Imports nothing heavy.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from omegaconf import OmegaConf

from alexnet_lab import places
from alexnet_lab.errors import UserError, WrongOption

CHOICE = re.compile(r"\+?(experiment|sweep|debug)=\[?([^\]]+)\]?")


@contextmanager
def naming_recipes(overrides: Iterable[str], conf: Path = places.CONF) -> Iterator[None]:
    """If a wrong option comes from a recipe chosen in `overrides`, add the recipe's file and a remedy to the error.

    Raises:
        UserError: the error raised inside, with the recipe.
    """
    try:
        yield
    except WrongOption as error:
        typed = {text.split("=")[0].lstrip("+~") for text in overrides}
        for path in _chosen(overrides, conf):
            misfits = [key for key in _mismatches(path, error) if f"{error.group}.{key}" not in typed]
            if misfits:
                raise UserError(_report(error, path.relative_to(conf.parent), misfits, overrides)) from error
        raise


def _chosen(overrides: Iterable[str], conf: Path) -> Iterator[Path]:
    for match in filter(None, map(CHOICE.fullmatch, overrides)):
        paths = (conf / match[1] / f"{name.strip()}.yaml" for name in match[2].split(","))
        yield from (path for path in paths if path.is_file())


def _mismatches(path: Path, error: WrongOption) -> list[str]:
    """The recipe's wrong keys in the group of the error; empty if the recipe does not set the reported key."""
    section = OmegaConf.to_container(OmegaConf.load(path)).get(error.group)  # type: ignore[union-attr]
    keys = [str(key) for key in section] if isinstance(section, Mapping) else []
    return [key for key in keys if key == error.key or key not in error.options] if error.key in keys else []


def _report(error: WrongOption, path: Path, misfits: list[str], overrides: Iterable[str]) -> str:
    group = error.group
    chosen = next((f"omit {text}, or " for text in overrides if text.startswith(f"{group}=")), "")
    changes = [f"{group}.{key}=..." if key in error.options else f"~{group}.{key}" for key in misfits]
    return (
        f"{str(error).splitlines()[0]}\n{path} sets {', '.join(f'{group}.{key}' for key in misfits)}, which "
        f"the chosen {group} does not take: {chosen}change the options that do not fit: {' '.join(changes)}"
    )
