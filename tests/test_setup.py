"""The installation: the lock, `make setup` with a fake Python, and the checks shared by make and pre-commit."""

import os
import re
import shutil
import subprocess
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LOCK = (ROOT / "requirements.lock").read_text()

# A fake python3.11: records each call, and `-m venv` installs itself as the venv's python and uv.
STAND_IN = """#!/bin/bash
echo "$(basename "$0") $* constraint=${PIP_CONSTRAINT-none}" >> calls.txt
case "$*" in
  *"-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python && cp "$0" .venv/bin/uv ;;
  *"-m pip"*) cat > bootstrap.txt ;;
  *"-r requirements.lock"*) [ ! -e offline ] ;;
esac
"""


def locked_versions() -> dict[str, list[str]]:
    """Name -> locked versions; several if they depend on the Python version."""
    versions: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", LOCK, flags=re.MULTILINE):
        versions.setdefault(name, []).append(version)
    return versions


def direct_requirements() -> Iterator[Requirement]:
    """The dependencies in pyproject.toml, including the extras used by `make lock`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pending = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    while pending:
        requirement = Requirement(pending.pop())
        if requirement.name == project["name"]:
            pending += [line for extra in requirement.extras for line in project["optional-dependencies"][extra]]
        else:
            yield requirement


def test_lock_pins_the_versions_of_the_results() -> None:
    versions = locked_versions()
    assert versions["torch"] == ["2.14.1"]
    assert versions["torchvision"] == ["0.29.1"]


def test_lock_keeps_out_the_malicious_lightning_uploads() -> None:
    versions = locked_versions()
    assert not {"2.6.2", "2.6.3"} & {*versions["lightning"], *versions["pytorch-lightning"]}


def test_every_locked_package_carries_a_hash() -> None:
    entries = re.split(r"\n(?=\S)", LOCK.strip())
    assert len(entries) > 100
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []


def test_every_direct_dependency_is_locked_within_its_range() -> None:
    versions = locked_versions()
    requirements = list(direct_requirements())
    assert {"torch", "tensorboard", "pytest"} <= {requirement.name for requirement in requirements}
    for requirement in requirements:
        locked = versions.get(canonicalize_name(requirement.name), [])
        assert locked, f"{requirement} is not in requirements.lock: run `make lock`"
        assert all(version in requirement.specifier for version in locked), f"{requirement} is locked as {locked}"


def test_no_file_contains_a_package_index() -> None:
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listing.returncode:
        pytest.skip("not a git checkout")
    index = re.compile(
        r"(pypi|pythonhosted)\.org|pytorch\.org/whl|(index[-_]url|find[-_]links)\s*[= ]\s*[\"']?(https?|file):"
    )
    files = [ROOT / name for name in listing.stdout.split("\0") if name]
    assert ROOT / "Makefile" in files
    assert [path for path in files if path.is_file() and index.search(path.read_text(errors="replace"))] == []


def test_pre_commit_runs_what_make_check_runs() -> None:
    command = ["make", "--dry-run", "--no-print-directory", "--assume-old=.venv/.installed", "check"]
    checks = subprocess.run(command, cwd=ROOT, env=plain_environment(), capture_output=True, text=True, check=True)
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repo["repo"] == "local"
    assert {hook["language"] for hook in repo["hooks"]} == {"system"}
    assert [hook["entry"] for hook in repo["hooks"]] == checks.stdout.splitlines()


def plain_environment() -> dict[str, str]:
    """This process's environment without the variables that an outer make, as in `make test`, passes on."""
    return {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The files that `make setup` reads, in a folder with a space in its name, and a fake Python."""
    folder = tmp_path / "a clone"
    folder.mkdir()
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    (folder / "stand-in").write_text(STAND_IN)
    (folder / "stand-in").chmod(0o755)
    return folder


def make_setup(folder: Path) -> tuple[int, list[str]]:
    """The exit status of `make setup`, and its calls of Python and uv."""
    calls = folder / "calls.txt"
    calls.write_text("")
    environment = plain_environment() | {"PIP_CONSTRAINT": "mine.txt"}
    done = subprocess.run(["make", "setup", "PYTHON=./stand-in"], cwd=folder, env=environment, capture_output=True)
    return done.returncode, calls.read_text().splitlines()


def test_setup_installs_the_lock_by_its_hashes_and_then_the_project(clone: Path) -> None:
    status, (venv, bootstrap, lock, project) = make_setup(clone)
    assert status == 0
    assert "-m venv --clear .venv" in venv
    assert "--require-hashes" in bootstrap
    assert "--require-hashes --compile-bytecode -r requirements.lock" in lock
    assert "--no-deps --no-build-isolation --editable ." in project


def test_setup_bootstraps_uv_alone_from_its_own_lines_of_the_lock(clone: Path) -> None:
    make_setup(clone)
    first, *hashes = (clone / "bootstrap.txt").read_text().splitlines()
    assert first.startswith("uv==")
    assert hashes
    assert all(line.startswith("    --hash=sha256:") for line in hashes)


def test_setup_ignores_the_constraints_of_the_user(clone: Path) -> None:
    assert all("constraint=none" in call for call in make_setup(clone)[1])


def test_second_setup_calls_neither_python_nor_uv(clone: Path) -> None:
    make_setup(clone)
    assert make_setup(clone) == (0, [])


def test_setup_after_a_failed_one_starts_over(clone: Path) -> None:
    (clone / "offline").touch()
    status, calls = make_setup(clone)
    assert status != 0
    assert len(calls) == 3
    (clone / "offline").unlink()
    status, calls = make_setup(clone)
    assert status == 0
    assert "-m venv --clear .venv" in calls[0]


def test_setup_updates_an_environment_without_clearing_it(clone: Path) -> None:
    make_setup(clone)
    later = time.time() + 10
    os.utime(clone / "requirements.lock", (later, later))
    status, calls = make_setup(clone)
    assert status == 0
    assert len(calls) == 3
    assert not any("-m venv" in call for call in calls)
