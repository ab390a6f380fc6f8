"""Tries the wheel with each Python that it claims, and the oldest and the newest versions that pyproject.toml accepts.

    make test-matrix                               every Python that is on PATH or in pyenv
    make test-matrix ARGS='--pythons 3.12'         these only
    make test-matrix ARGS='--versions newest'      these only
    make test-matrix ARGS='--keep FOLDER'          keep the environments there

Each environment is made by uv in a temporary folder and holds the wheel and what it depends on; the first time, that
downloads several GB. STEPS run in an empty folder. The table has a line for each environment, with the time of its
steps; exit status 1 if one failed or none could be tried.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
UV = Path(sys.executable).with_name("uv")
CLAIMED = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
PYTHONS = re.findall(r"^Programming Language :: Python :: (3\.\d+)$", "\n".join(CLAIMED), re.MULTILINE)
RESOLUTIONS = {"oldest": "lowest-direct", "newest": "highest"}
"""Label in the table -> uv's way to choose the versions of the direct dependencies."""
SHOWN = ("torch", "torchvision", "lightning", "hydra-core", "wandb", "numpy")
WIDTHS = (6, 8, 92, 5, 0)
LIMIT = 300
"""Seconds for all steps of an environment, which take about a minute."""

IMPORT_ALL = """
import importlib, pkgutil, alexnet_lab
for module in pkgutil.walk_packages(alexnet_lab.__path__, "alexnet_lab."):
    importlib.import_module(module.name)
from PIL import Image
Image.linear_gradient("L").save("cat.jpg")
"""
SHORT = [
    *("trainer.max_epochs=1", "trainer.limit_train_batches=5", "data.eval_batch_size=16"),
    *("trainer.limit_val_batches=1", "trainer.limit_test_batches=1"),
]
SMOKE = ["-m", "smoke", "-p", "no:cacheprovider", "-q"]
STEPS = {
    "import": ["python", "-c", IMPORT_ALL],
    "--help": ["alexnet-lab", "train", "--help"],
    "quickstart": ["alexnet-lab", "train", "experiment=quickstart", "run=quick", *SHORT],
    "predict": ["alexnet-lab", "predict", "checkpoint=logs/train/runs/quick/checkpoints/last.ckpt", "images=cat.jpg"],
    "two ranks": ["alexnet-lab", "train", "model=lenet", "data=synthetic", "trainer=cpu", "trainer.devices=2", *SHORT],
    "tests": ["python", "-m", "pytest", *SMOKE, f"{ROOT}/tests/models", f"{ROOT}/tests/data"],
}


def main() -> int:
    parser = argparse.ArgumentParser(description="Try the wheel with old and new versions.")
    parser.add_argument("--pythons", nargs="+", default=PYTHONS, metavar="X.Y")
    parser.add_argument("--versions", nargs="+", default=list(RESOLUTIONS), choices=RESOLUTIONS)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="make the environments there and keep them")
    arguments = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory(prefix="matrix-") as temporary:
        build = [str(UV), "build", "--quiet", "--wheel", "--no-build-isolation", f"--python={sys.executable}"]
        subprocess.run([*build, f"--out-dir={temporary}"], cwd=ROOT, check=True)
        (wheel,) = Path(temporary).glob("*.whl")
        show("Python", "versions", "packages", "time", "result")
        for version in arguments.pythons:
            for label in arguments.versions:
                folder = (arguments.keep or Path(temporary)).resolve() / f"{version}-{label}"
                row = tried(version, RESOLUTIONS[label], folder, wheel)
                show(version, label, *row)
                results.append(row[-1])
                if not arguments.keep:
                    shutil.rmtree(folder, ignore_errors=True)
    return 0 if "passed" in results and not any(result.startswith("failed") for result in results) else 1


def show(*cells: str) -> None:
    print("  ".join(cell.ljust(width) for cell, width in zip(cells, WIDTHS, strict=True)), flush=True)


def tried(version: str, resolution: str, folder: Path, wheel: Path) -> tuple[str, str, str]:
    """The versions of the most important packages, the seconds of the steps, and the result."""
    interpreter = found(version)
    if interpreter is None:
        return "", "", f"not run: there is no Python {version}"
    try:
        installed = install(interpreter, resolution, folder, wheel)
    except subprocess.CalledProcessError as error:
        return "", "", f"failed: uv {error.cmd[1]} {error.cmd[2]}"
    start = time.monotonic()
    result = steps(folder)
    return ", ".join(f"{name} {installed[name]}" for name in SHOWN), f"{time.monotonic() - start:.0f} s", result


def steps(folder: Path) -> str:
    """The result of STEPS in the environment of this folder; the output of a step that fails is printed."""
    empty = folder / "empty"
    empty.mkdir()
    environment = {name: text for name, text in os.environ.items() if name not in ("PYTHONPATH", "ALEXNET_LAB_HOME")}
    environment |= {"WANDB_MODE": "offline"}
    deadline = time.monotonic() + LIMIT
    for name, (program, *options) in STEPS.items():
        with (empty / "output.txt").open("w+") as output:
            command = [str(folder / "bin" / program), *options]
            process = subprocess.Popen(command, cwd=empty, env=environment, stdout=output, stderr=subprocess.STDOUT)
            try:
                status = process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                return f"failed: {name}, not finished after {LIMIT} s"
            if status:
                output.seek(0)
                print(f"{folder.name}, {name}:", output.read()[-3000:], sep="\n", file=sys.stderr, flush=True)
                return f"failed: {name}, exit status {status}"
    return "passed"


def install(interpreter: str, resolution: str, folder: Path, wheel: Path) -> dict[str, str]:
    """Make the environment with the wheel, its direct dependencies and pytest; package -> version."""
    listed = folder.parent / f"{folder.name}.txt"
    folder.parent.mkdir(parents=True, exist_ok=True)
    choose = ["pyproject.toml", f"--resolution={resolution}", f"--python={interpreter}", "--no-annotate", "--no-header"]
    # Of NumPy's oldest versions, those without a wheel for this Python would be compiled.
    choose += ["--only-binary=numpy", "--quiet", f"--output-file={listed}"]
    subprocess.run([UV, "pip", "compile", *choose], cwd=ROOT, check=True)
    subprocess.run([UV, "venv", "--quiet", "--clear", f"--python={interpreter}", folder], check=True)
    for chosen in ([f"--requirements={listed}", "pytest"], ["--no-deps", wheel]):
        subprocess.run([UV, "pip", "install", "--quiet", f"--python={folder}/bin/python", *chosen], check=True)
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
