"""The installation: the lock, `make setup` with a fake Python, and the checks shared by make and pre-commit."""

import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LOCK = (ROOT / "requirements.lock").read_text()

TOOLS = ("bash", "basename", "cat", "cp", "dirname", "find", "ln", "make", "mkdir", "rm", "rmdir", "sed", "touch")
"""The programs that `make setup` and the fakes may use."""

# A fake Python and uv: records each call. The first lines change what the real Python, which answers for it, finds;
# `-m venv` and `uv venv` install it as the environment's python and uv.
FAKE = """#!/bin/bash
changes={changes!r}
echo "$(basename "$0") ${{*/#*import*/asked}} constraint=${{PIP_CONSTRAINT-none}}" >> calls.txt
case "$*" in
  *" -c "*)
    code=$3; shift 3
    changes="import sys, sysconfig; sys._base_executable = '{path}'; $changes"
    exec {real} -I -c "$changes; exec(sys.argv.pop(1))" "$code" "$@" ;;
  *"-m venv"*) mkdir -p .venv/bin; cp "$0" .venv/bin/python; cp "$0" .venv/bin/uv; [ ! -e broken ] ;;
  "venv "*) mkdir -p .venv/bin; cp "${{@: -2:1}}" .venv/bin/python ;;
  *"-m pip"*) cat > bootstrap.txt ;;
  "python find"*) [ "${{@: -1}}" = 3.12 ] && cat uv_has ;;
  *"-r requirements.lock"*) [ ! -e offline ] ;;
esac
"""
SHIM = "#!/bin/bash\necho 'pyenv: python3.13: command not found' >&2\nexit 127\n"


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


def test_every_claimed_python_is_within_the_range_and_no_other() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    claimed = [line.rpartition(" ")[2] for line in project["classifiers"] if ":: Python :: 3." in line]
    accepted = SpecifierSet(project["requires-python"])
    assert claimed == [f"3.{minor}" for minor in range(30) if f"3.{minor}" in accepted]


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
    outer = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHON"}
    return {name: value for name, value in os.environ.items() if name not in outer}


class Clone:
    """The files that `make setup` reads, in a folder with a space in its name, and a PATH with fake Pythons."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "a clone"
        self.folder.mkdir()
        for name in ("Makefile", "make_venv.sh", "requirements.lock", "pyproject.toml"):
            shutil.copy(ROOT / name, self.folder)
        self.path = [folder / "tools"]
        self.path[0].mkdir()
        for name in TOOLS:
            (self.path[0] / name).symlink_to(shutil.which(name) or name)

    def add(self, name: str, changes: str = "pass", text: str = FAKE) -> Path:
        """A program in a folder of its own at the end of PATH."""
        file = self.folder.parent / f"{len(self.path)}" / name
        file.parent.mkdir()
        file.write_text(text.format(changes=changes, real=sys.executable, path=file) if text == FAKE else text)
        file.chmod(0o755)
        self.path.append(file.parent)
        return file

    def make(self, *arguments: str, **variables: str) -> tuple[int, list[str], str]:
        """The exit status of `make setup`, its calls of Python and uv, and its errors."""
        calls = self.folder / "calls.txt"
        calls.write_text("")
        path = os.pathsep.join(map(str, self.path))
        environment = plain_environment() | {"PIP_CONSTRAINT": "mine.txt", "PATH": path} | variables
        make = ["make", "setup", *arguments]
        done = subprocess.run(make, cwd=self.folder, env=environment, capture_output=True, text=True)
        self.printed = done.stdout
        return done.returncode, calls.read_text().splitlines(), done.stderr

    @property
    def has_environment(self) -> bool:
        return (self.folder / ".venv").exists()


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def version(minor: int) -> str:
    return f"sys.version_info = (3, {minor}, 0)"


@pytest.fixture
def with_python(clone: Clone) -> Clone:
    clone.add("python3.13", version(13))
    return clone


def test_setup_installs_the_lock_by_its_hashes_and_then_the_project(with_python: Clone) -> None:
    status, (_, venv, bootstrap, lock, project), _ = with_python.make()
    assert status == 0
    assert "-m venv .venv" in venv
    assert "--require-hashes" in bootstrap
    assert "--require-hashes --compile-bytecode -r requirements.lock" in lock
    assert "--no-deps --no-build-isolation --editable ." in project


def test_setup_bootstraps_uv_alone_from_its_own_lines_of_the_lock(with_python: Clone) -> None:
    with_python.make()
    first, *hashes = (with_python.folder / "bootstrap.txt").read_text().splitlines()
    assert first.startswith("uv==")
    assert hashes
    assert all(line.startswith("    --hash=sha256:") for line in hashes)


def test_setup_uses_an_installed_uv_and_needs_no_pip(clone: Clone) -> None:
    clone.add("python3.12", f"{version(12)}; sys.modules['ensurepip'] = None")
    clone.add("uv")
    status, calls, errors = clone.make()
    assert status == 0, errors
    assert [call.split()[:2] for call in calls if call.startswith("uv ")][-3:] == [["uv", "venv"], *[["uv", "pip"]] * 2]
    assert not any("-m pip" in call or "-m venv" in call for call in calls)


def test_setup_finds_a_python_that_uv_has_installed(clone: Clone) -> None:
    clone.add("python3.11", version(11))
    clone.add("uv")
    found = clone.add("python-of-uv", version(12))
    (clone.folder / "uv_has").write_text(f"{found}\n")
    assert any(f"--python {found} .venv" in call for call in clone.make()[1])


def test_setup_ignores_the_constraints_of_the_user(with_python: Clone) -> None:
    assert all("constraint=none" in call for call in with_python.make()[1])


def test_second_setup_calls_neither_python_nor_uv(with_python: Clone) -> None:
    with_python.make()
    assert with_python.make()[:2] == (0, [])
    with_python.make("PYTHON=python3.13")
    assert with_python.make("PYTHON=python3.13")[:2] == (0, [])


def test_setup_after_a_failed_one_starts_over(with_python: Clone) -> None:
    (with_python.folder / "offline").touch()
    status, calls, _ = with_python.make()
    assert status != 0
    assert len(calls) == 4
    assert not with_python.has_environment
    (with_python.folder / "offline").unlink()
    status, calls, _ = with_python.make()
    assert status == 0
    assert "-m venv .venv" in calls[1]


def test_setup_leaves_nothing_of_an_environment_that_could_not_be_made(with_python: Clone) -> None:
    (with_python.folder / "broken").touch()
    status, calls, _ = with_python.make()
    assert status != 0
    assert "-m venv .venv" in calls[-1]
    assert not with_python.has_environment


def later(clone: Clone) -> None:
    """Make the lock newer than the environment."""
    seconds = time.time() + 10
    os.utime(clone.folder / "requirements.lock", (seconds, seconds))


def test_setup_updates_an_environment_of_an_older_python(clone: Clone) -> None:
    clone.add("python3.11", version(11))
    clone.make()
    clone.add("python3.13", version(13))
    later(clone)
    status, calls, _ = clone.make()
    assert status == 0
    assert [call.split()[0] for call in calls] == ["python", "python", "uv", "uv"]
    assert not any("-m venv" in call for call in calls)


def test_setup_makes_an_environment_again_whose_python_cannot_be_used(clone: Clone) -> None:
    clone.add("python3.11", version(11))
    clone.make()
    clone.add("python3.13", version(13))
    (clone.folder / ".venv" / "bin" / "python").write_text(SHIM)
    (clone.folder / ".venv" / "of the old one").touch()
    later(clone)
    status, calls, _ = clone.make()
    assert status == 0
    assert any(call.startswith("python3.13 -m venv .venv") for call in calls)
    assert not (clone.folder / ".venv" / "of the old one").exists()


def test_setup_with_another_python_makes_the_environment_again(clone: Clone) -> None:
    clone.add("python3.13", version(13))
    clone.add("python3.11", version(11))
    assert any(call.startswith("python3.13 -m venv") for call in clone.make()[1])
    assert any(call.startswith("python3.11 -m venv") for call in clone.make("PYTHON=python3.11")[1])
    assert not any("-m venv" in call for call in clone.make("PYTHON=python3.11")[1])
    assert any(call.startswith("python3.13 -m venv") for call in clone.make(PYTHON="python3.13")[1])


def test_setup_with_a_python_by_name_takes_the_first_that_runs(clone: Clone) -> None:
    clone.add("python3.12", text=SHIM)
    working = clone.add("python3.12", version(12))
    status, calls, errors = clone.make("PYTHON=python3.12")
    assert status == 0, errors
    assert calls[-4].startswith("python3.12 -m venv")
    assert f"with {working}" in clone.printed


def test_setup_takes_the_newest_python_that_runs(clone: Clone) -> None:
    clone.add("python3.13", text=SHIM)
    clone.add("python3.11", version(11))
    clone.add("python3.12", version(12))
    clone.add("python3", version(14))
    status, calls, errors = clone.make()
    assert status == 0, errors
    assert any(call.startswith("python3.12 -m venv .venv") for call in calls)


def test_setup_takes_a_python_of_a_general_name(clone: Clone) -> None:
    clone.add("python3", version(13))
    status, calls, errors = clone.make()
    assert status == 0, errors
    assert any(call.startswith("python3 -m venv .venv") for call in calls)


def test_setup_does_not_use_the_python_of_the_environment_that_it_makes(with_python: Clone) -> None:
    with_python.make()
    binaries = with_python.folder / ".venv" / "bin"
    (binaries / "python3.13").symlink_to("python")
    (binaries.parent / ".installed").unlink()
    with_python.path.insert(0, binaries)
    status, calls, errors = with_python.make()
    assert status == 0, errors
    assert [call.split()[1] for call in calls[:2]] == ["-I", "-m"]


@pytest.mark.parametrize(
    ("name", "changes", "found"),
    [
        (None, "", "none"),
        ("python3", version(10), "python3 (Python 3.10)"),
        ("python3", version(14), "python3 (Python 3.14)"),
        ("python3.13", None, "python3.13 (does not run)"),
        ("python3.13", "sys.exit(1)", "python3.13 (does not run)"),
        ("python3.12", "sys.implementation.name = 'pypy'", "python3.12 (not CPython)"),
        ("python3.12", "sys.maxsize = 2**31 - 1", "python3.12 (32-bit)"),
        (
            "python3.12",
            "sysconfig.get_config_var = lambda name, others=sysconfig.get_config_var: 'GIL' in name or others(name)",
            "python3.12 (free-threaded)",
        ),
        ("python3.12", "sys.modules['lzma'] = sys.modules['ssl'] = None", "python3.12 (lacks lzma and ssl)"),
        (
            "python3.12",
            f"{version(12)}; sys.modules['ensurepip'] = None",
            "python3.12 (lacks ensurepip: apt install python3.12-venv)",
        ),
    ],
)
def test_setup_reports_in_one_line_which_python_is_missing(
    clone: Clone, name: str | None, changes: str | None, found: str
) -> None:
    if name:
        found = f"{clone.add(name, changes or '', FAKE if changes else SHIM).parent}/{found}"
    for arguments in ((), (f"PYTHON={name}",) if name else ("PYTHON=python3",)):
        status, _, errors = clone.make(*arguments)
        assert status != 0
        line, of_make = errors.splitlines()
        assert line.startswith("error: AlexNet Lab needs Python 3.11 to 3.13 (64-bit); found: ")
        assert found in line or arguments
        assert "`uv python install 3.13`" in line
        assert of_make.startswith("make: ***")
        assert not clone.has_environment


def test_a_python_that_cannot_be_used_leaves_the_environment_as_it_is(with_python: Clone) -> None:
    with_python.make()
    status, _, errors = with_python.make("PYTHON=python3.10")
    assert status != 0
    assert "python3.10 (does not run)" in errors
    assert with_python.make()[:2] == (0, [])
