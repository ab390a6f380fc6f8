"""Runs the tests marked `smoke` with each supported Python and the oldest versions that pyproject.toml accepts.

    make test-matrix                          every Python of PYTHONS that is installed
    make test-matrix ARGS='--pythons 3.12'    these only
    make test-matrix ARGS='--keep FOLDER'     keep the environments there

Each environment is made by uv in a temporary folder; the first time, that downloads several GB of wheels. The table at
the end has a line for each environment; exit status 1 if one failed or none could be tested.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.11", "3.12")
RESOLUTIONS = {"oldest": "lowest-direct"}
"""Label in the table -> uv's way to choose the versions of the direct dependencies."""
SHOWN = ("torch", "torchvision", "lightning", "hydra-core", "numpy")
LIMIT = 300
"""Seconds for the tests of an environment; they take about two minutes."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Test the oldest supported versions.")
    parser.add_argument("--pythons", nargs="+", default=PYTHONS, metavar="X.Y")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="make the environments there and keep them")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="matrix-") as temporary:
        for version in arguments.pythons:
            for label, resolution in RESOLUTIONS.items():
                folder = (arguments.keep or Path(temporary)).resolve() / f"{version}-{label}"
                rows.append((version, label, *tested(version, resolution, folder)))
                if not arguments.keep:
                    shutil.rmtree(folder, ignore_errors=True)
    for row in (("Python", "versions", "packages", "result"), *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, (6, 8, 78, 0), strict=True)))
    results = [row[-1] for row in rows]
    return 0 if "passed" in results and not any(result.startswith("failed") for result in results) else 1


def tested(version: str, resolution: str, folder: Path) -> tuple[str, str]:
    """The versions of the most important packages, and the result of the tests."""
    interpreter = found(version)
    if interpreter is None:
        return "", "not installed"
    python = folder / "bin" / "python"
    try:
        installed = install(interpreter, resolution, folder)
    except subprocess.CalledProcessError as error:
        return "", f"failed: {' '.join(error.cmd[1:3])}"
    packages = ", ".join(f"{name} {installed[name]}" for name in SHOWN)
    command = [python, "-m", "pytest", "-m", "smoke", "-p", "no:cacheprovider", "tests"]
    start = time.monotonic()
    try:
        status = subprocess.run(command, cwd=ROOT, timeout=LIMIT).returncode
    except subprocess.TimeoutExpired:
        return packages, f"failed: not finished after {LIMIT} s"
    print(f"Python {version}: {time.monotonic() - start:.0f} s", flush=True)
    return packages, "passed" if status == 0 else f"failed: pytest's exit status is {status}"


def install(interpreter: str, resolution: str, folder: Path) -> dict[str, str]:
    """Make the environment, with the direct dependencies and pytest only; package -> version."""
    uv = Path(sys.executable).with_name("uv")
    listed = folder.with_suffix(".txt")
    folder.parent.mkdir(parents=True, exist_ok=True)
    choose = ["pyproject.toml", f"--resolution={resolution}", f"--python={interpreter}", "--no-annotate", "--no-header"]
    subprocess.run([uv, "pip", "compile", *choose, "--quiet", f"--output-file={listed}"], cwd=ROOT, check=True)
    subprocess.run([uv, "venv", "--quiet", "--clear", f"--python={interpreter}", folder], check=True)
    chosen = [f"--python={folder}/bin/python", f"--requirements={listed}", "pytest"]
    subprocess.run([uv, "pip", "install", "--quiet", *chosen], check=True)
    return dict(line.split("==") for line in listed.read_text().splitlines())


def found(version: str) -> str | None:
    """A working interpreter of this version: from PATH or pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for candidate in (f"python{version}", *map(str, sorted(pyenv.glob(f"versions/{version}.*/bin/python")))):
        if shutil.which(candidate) and subprocess.run([candidate, "-c", ""], capture_output=True).returncode == 0:
            return candidate
    return None


if __name__ == "__main__":
    sys.exit(main())
