"""Where things are: the configurations, the code, and the home, the folder below which logs and data are.

A wheel contains the configurations inside the package, as `alexnet_lab/conf`; a checkout has them next to `src`, and so
has an editable install, which refers to a checkout. No file is written into the package's folder.

Imports nothing heavy.
"""

import os
import shlex
import site
from pathlib import Path

from alexnet_lab.errors import UserError

PACKAGE = Path(__file__).resolve().parent
CHECKOUT = None if (PACKAGE / "conf").is_dir() else PACKAGE.parents[1]
"""The project's folder, which contains `src`, `conf` and `docs`; None for an installed package."""
CONF = (CHECKOUT or PACKAGE) / "conf"
HOME = "ALEXNET_LAB_HOME"
"""Environment variable: the home, if it is not the checkout, or for an installed package the user's folder."""

ELSEWHERE = f"to put all logs and data elsewhere: {HOME}=FOLDER"


def home() -> Path:
    """The home of this process and of those that started it."""
    return Path(os.environ.get(HOME) or CHECKOUT or Path.cwd())


def enter_home(caller: Path | None) -> None:
    """Work in the home from now on, for a user whose folder is `caller`; processes that this one starts do so, too.

    A relative `ALEXNET_LAB_HOME` is relative to `caller`; None is a folder that no longer exists.

    Raises:
        UserError: the home does not exist, or is not a folder.
    """
    given = os.environ.get(HOME)
    default = CHECKOUT or caller
    try:
        path = Path(given).expanduser() if given else default
    except RuntimeError:
        raise UserError(f"{HOME}={given}: there is no such user") from None
    if path is None or (caller is None and not path.is_absolute()):
        raise UserError("the folder that you are in no longer exists; change to another one")
    work_in((caller or Path()) / path, f"{HOME}={given}" if given else str(path))


def work_in(folder: Path, named: str) -> None:
    """Make `folder` the working folder and the home; messages call it `named`."""
    try:
        os.chdir(folder)
    except FileNotFoundError:
        path = shlex.quote(str(folder))
        raise UserError(f"{named}: there is no such folder; to create it: mkdir -p {path}") from None
    except OSError as error:
        raise UserError(f"{named}: {error.strerror}") from error
    os.environ[HOME] = os.getcwd()


def version() -> str | None:
    """The version of this package; None if it is a copy of the code only."""
    from importlib import metadata  # here, since it is slow to import

    try:
        if CHECKOUT:
            import tomllib

            return str(tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["version"])
        return metadata.version("alexnet-lab")
    except (OSError, metadata.PackageNotFoundError):
        return None


def docs() -> Path:
    """The folder of the recorded runs and the results page."""
    return (CHECKOUT or home()) / "docs"


def set_imports_of_processes() -> None:
    """Let the processes that this one starts, also through other launchers, import this package.

    `python -m` imports nothing from the working folder, which is the user's: it may contain a `numbers.py`.
    """
    os.environ |= {"PYTHONPATH": python_path(os.environ.get("PYTHONPATH", "")), "PYTHONSAFEPATH": "1"}


def python_path(paths: str) -> str:
    """`paths`, a PYTHONPATH, for processes that import the same package: absolute, and with its folder if necessary."""
    given = [os.path.abspath(path) for path in paths.split(os.pathsep) if path]
    found_by_python = {os.path.realpath(path) for path in (*site.getsitepackages(), site.getusersitepackages())}
    own = [] if str(PACKAGE.parent) in found_by_python else [str(PACKAGE.parent)]
    return os.pathsep.join(dict.fromkeys([*own, *given]))
