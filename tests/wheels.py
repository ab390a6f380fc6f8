"""Builds the project's wheel, sdist and editable wheel, and unpacks them."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

BUILD = "import sys; from hatchling import build; print(getattr(build, f'build_{sys.argv[1]}')(sys.argv[2]))"


def built(kind: str, project: Path, folder: Path) -> Path:
    """The `wheel`, `sdist` or `editable` wheel of `project`, in the new `folder`."""
    folder.mkdir(parents=True)
    command = [sys.executable, "-c", BUILD, kind, str(folder)]
    printed = subprocess.run(command, cwd=project, check=True, capture_output=True, text=True).stdout
    return folder / printed.split()[-1]


def unpacked(archive: Path, folder: Path) -> Path:
    """The only folder in an sdist, or the folder with the content of a wheel."""
    if archive.suffix == ".whl":
        zipfile.ZipFile(archive).extractall(folder)
        return folder
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    return next(folder.iterdir())
