"""Where the configurations and the home are: for a wheel, a wheel of the sdist, an editable install and a checkout."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from tests.wheels import built, unpacked

from alexnet_lab import places
from alexnet_lab.errors import UserError

ROOT = Path(__file__).parents[1]
ASK = "import json; from alexnet_lab import places; print(json.dumps([str(places.CHECKOUT), str(places.CONF)]))"


def names_in(wheel: Path) -> set[str]:
    return {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built("wheel", ROOT, tmp_path_factory.mktemp("built") / "wheel")


@pytest.fixture(scope="module")
def project_of_sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    return unpacked(built("sdist", ROOT, folder / "built"), folder / "unpacked")


def places_of(folder: Path) -> list[str]:
    """CHECKOUT and CONF as a new interpreter sees them that finds the package through `folder` alone."""
    command = [sys.executable, "-S", "-c", f"import site; site.addsitedir({str(folder)!r}); {ASK}"]
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "ALEXNET"))}
    printed = subprocess.run(command, env=bare, cwd=folder, check=True, capture_output=True, text=True).stdout
    assert yaml.safe_load(Path(json.loads(printed)[1], "train.yaml").read_text())["seed"] == 0
    return json.loads(printed)


def test_wheel_has_all_configurations_inside_the_package_and_no_tests(wheel: Path) -> None:
    names = names_in(wheel)
    assert {f"alexnet_lab/conf/{path.relative_to(ROOT / 'conf')}" for path in (ROOT / "conf").rglob("*.yaml")} <= names
    assert {"alexnet_lab/py.typed", "alexnet_lab/report/page.html", "alexnet_lab/data/imagenet_classes.csv"} <= names
    assert {"hydra_plugins/alexnet_lab_launcher/launcher.py"} <= names
    assert {name.split("/")[0] for name in names} == {"alexnet_lab", "hydra_plugins"}
    assert {Path(name).suffix for name in names} == {".py", ".yaml", ".csv", ".html", ".typed"}
    assert [name for name in names if "test" in name] == []


def test_wheel_knows_its_configurations(wheel: Path, tmp_path: Path) -> None:
    folder = unpacked(wheel, tmp_path / "site-packages")
    assert places_of(folder) == ["None", f"{folder}/alexnet_lab/conf"]


def test_sdist_without_git_builds_the_same_wheel(wheel: Path, project_of_sdist: Path, tmp_path: Path) -> None:
    assert names_in(built("wheel", project_of_sdist, tmp_path / "wheel")) == names_in(wheel)
    top = {path.name for path in project_of_sdist.iterdir()}
    assert top == {".gitignore", "CHANGELOG.md", "LICENSE", "PKG-INFO", "README.md", "conf", "pyproject.toml", "src"}


def test_editable_install_uses_the_configurations_of_its_checkout(project_of_sdist: Path, tmp_path: Path) -> None:
    editable = built("editable", project_of_sdist, tmp_path / "editable")
    assert [name for name in names_in(editable) if not name.endswith(".pth")] == []
    folder = unpacked(editable, tmp_path / "site-packages")
    assert places_of(folder) == [str(project_of_sdist), f"{project_of_sdist}/conf"]


def test_checkout_that_is_not_installed_uses_its_configurations(project_of_sdist: Path) -> None:
    assert places_of(project_of_sdist / "src") == [str(project_of_sdist), f"{project_of_sdist}/conf"]


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder; the test may change the working folder and the home."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(places.HOME, "")
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_home_of_an_installed_package_is_the_users_folder(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "CHECKOUT", None)
    places.enter_home(elsewhere)
    assert Path.cwd() == places.home() == elsewhere
    assert places.docs() == elsewhere / "docs"


def test_home_in_a_checkout_is_the_checkout(elsewhere: Path) -> None:
    places.enter_home(elsewhere)
    assert Path.cwd() == places.home() == ROOT
    places.enter_home(None)
    assert Path.cwd() == ROOT


@pytest.mark.parametrize("given", ["work", "~/work", "{}/work", "{}/other/../work"])
@pytest.mark.parametrize("checkout", [None, ROOT])
def test_named_home_is_used_and_absolute_for_other_processes(
    given: str, checkout: Path | None, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "CHECKOUT", checkout)
    (elsewhere / "work").mkdir()
    (elsewhere / "other").mkdir()
    monkeypatch.setenv(places.HOME, given.format(elsewhere))
    places.enter_home(elsewhere)
    assert Path.cwd() == elsewhere / "work"
    assert os.environ[places.HOME] == str(elsewhere / "work")
    os.chdir(elsewhere)
    assert places.home() == elsewhere / "work"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("missing", "ALEXNET_LAB_HOME=missing: there is no such folder; to create it: mkdir -p {}/missing"),
        ("file", "ALEXNET_LAB_HOME=file: Not a directory"),
        ("~nobody-of-this-name", "ALEXNET_LAB_HOME=~nobody-of-this-name: there is no such user"),
    ],
)
def test_home_that_is_not_a_folder_is_refused_in_one_line(
    given: str, message: str, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (elsewhere / "file").touch()
    monkeypatch.setenv(places.HOME, given)
    with pytest.raises(UserError) as raised:
        places.enter_home(elsewhere)
    assert str(raised.value) == message.format(elsewhere)


def test_user_in_a_folder_that_no_longer_exists_needs_an_absolute_home(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "CHECKOUT", None)
    for given in ("", "work"):
        monkeypatch.setenv(places.HOME, given)
        with pytest.raises(UserError, match="the folder that you are in no longer exists"):
            places.enter_home(None)
    monkeypatch.setenv(places.HOME, str(elsewhere))
    places.enter_home(None)


def test_processes_find_the_package_where_python_would_not(monkeypatch: pytest.MonkeyPatch, elsewhere: Path) -> None:
    source = str(places.PACKAGE.parent)
    assert places.python_path("") == source
    assert places.python_path(f"mine::/other:mine:{source}") == f"{source}:{elsewhere}/mine:/other"
    monkeypatch.setattr(places.site, "getsitepackages", lambda: [source])
    assert places.python_path("mine") == f"{elsewhere}/mine"
