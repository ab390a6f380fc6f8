"""The output file of a command: checked before the work begins, written at its end.

Imports nothing heavy.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alexnet_lab import files
from alexnet_lab.errors import UserError


def check_output(key: str, value: Any, suffixes: Sequence[str], makes_folder: bool = False) -> None:
    """Check the file `value` of the option `key`; None means no file.

    Args:
        suffixes: the allowed suffixes, in lower case.
        makes_folder: whether the command creates the file's folder.

    Raises:
        UserError: not a file name with one of the suffixes, or the file cannot be written.
    """
    if value is None:
        return
    if not isinstance(value, str):
        raise UserError(f"{key}={value}: {key} takes the name of one file")
    path = Path(value)
    if path.is_dir():
        raise UserError(f"{key}={value} is a folder; name a file in it")
    if path.suffix.lower() not in suffixes:
        raise UserError(f"{key}={value}: the name must end in {' or '.join(suffixes)}")
    if path.exists() and not path.is_file():
        raise UserError(f"{key}={value} is not a regular file and cannot be replaced")
    folder = next(one for one in path.parents if one.exists()) if makes_folder else path.parent
    if not folder.is_dir():
        raise UserError(f"{key}={value}: there is no folder {path.parent}")
    try:
        files.try_to_write(folder / path.name)
    except OSError as error:
        raise UserError(f"{key}={value}: no file can be written in {folder} ({error.strerror})") from error


def write_output(path: Path, content: str | bytes) -> None:
    """Write the file `out=path`, which `check_output` has checked, and its folder; print its name.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, content)
    except OSError as error:
        raise UserError(f"out={path}: {error.strerror}") from error
    files.print_written(path)
