"""The package as its users have it: a wheel of the sdist in an empty environment, used from another folder.

The environment and the user's folder are inside a git repository of the user. Python cannot find the checkout.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from tests.wheels import built, unpacked

from alexnet_lab.commands.program import COMMANDS

ROOT = Path(__file__).parents[1]
SYSTEM_DATA = Path("/usr/share/datasets/fashion-mnist")
TINY = ("model=lenet", "data=synthetic", "data.train_size=64", "trainer.max_epochs=1", "logger=none")
ONE_BATCH = ("trainer.limit_val_batches=1", "trainer.limit_test_batches=1", "data.eval_batch_size=16")
pytestmark = pytest.mark.system


@dataclass(frozen=True)
class Installed:
    """An environment with the package, and its user's folder."""

    environment: Path
    folder: Path

    @property
    def packages(self) -> Path:
        (found,) = self.environment.glob("lib/python*/site-packages")
        return found

    def run(self, *words: str, cwd: Path | None = None, status: int = 0, **variables: str) -> str:
        """The output of a command; nothing of the tests' environment is passed on."""
        plain = {
            "PATH": f"{self.environment / 'bin'}:/usr/bin:/bin",
            "HOME": str(self.folder.parent),
            "WANDB_MODE": "offline",
            "OMP_NUM_THREADS": "1",
            "PYTHONPYCACHEPREFIX": str(self.folder.parent / "compiled"),
        }
        folder = cwd or self.folder
        ended = subprocess.run(words, cwd=folder, env=plain | variables, capture_output=True, text=True)
        assert ended.returncode == status, f"{words}\n{ended.stdout[-3000:]}\n{ended.stderr[-3000:]}"
        return ended.stdout + ended.stderr

    def lab(self, *words: str, **more: Any) -> str:
        return self.run("alexnet-lab", *words, **more)

    def result(self, run: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "logs" / "train" / run / "result.json").read_text())
        return found


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """Installed from the lock's versions, from uv's cache where it has them; its folders are read-only afterwards."""
    home = tmp_path_factory.mktemp("user")
    wheel = built("wheel", unpacked(built("sdist", ROOT, home / "sdist"), home / "source"), home / "wheel")
    shutil.rmtree(home / "source")
    one = Installed(home / "venv", home / "work")
    one.folder.mkdir()
    for words in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "mine"]):
        subprocess.run(["git", "-C", str(home), *words], check=True)
    uv = str(Path(sys.executable).with_name("uv"))
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(one.environment)], check=True)
    install = [uv, "pip", "install", "-q", "--python", str(one.environment / "bin/python"), str(wheel)]
    install += ["--constraint", str(ROOT / "requirements.lock")]
    if subprocess.run([*install, "--offline"], capture_output=True).returncode:
        subprocess.run(install, check=True)
    folders = [folder for folder in (one.packages, *one.packages.rglob("*")) if folder.is_dir()]
    before = everything(one.packages)
    for folder in folders:  # not the files: they are links into uv's cache
        folder.chmod(0o555)
    try:
        yield one
        assert everything(one.packages) == before, "written into the package's folder"
    finally:
        for folder in folders:
            folder.chmod(0o755)


def everything(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def test_environment_contains_only_the_wheel_and_what_it_requires(installed: Installed) -> None:
    printed = installed.run("python", "-c", "import alexnet_lab, hydra_plugins; print(alexnet_lab, hydra_plugins)")
    assert str(ROOT) not in printed
    assert str(installed.packages) in printed
    assert not (installed.packages / "pytest").exists()
    assert installed.lab("--version").strip() == metadata(installed)["Version"]


def metadata(installed: Installed) -> Message:
    (folder,) = installed.packages.glob("alexnet_lab-*.dist-info")
    return HeaderParser().parsestr((folder / "METADATA").read_text())


def test_metadata_names_license_urls_versions_and_the_readme(installed: Installed) -> None:
    about = metadata(installed)
    assert (about["Name"], about["License-Expression"], about["License-File"]) == ("alexnet-lab", "MIT", "LICENSE")
    assert about["Summary"]
    assert about["Keywords"]
    assert {"Homepage", "Documentation", "Issues", "Changelog"} == {
        url.partition(",")[0] for url in about.get_all("Project-URL")
    }
    classifiers = set(about.get_all("Classifier"))
    assert {f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)} <= classifiers
    assert "Typing :: Typed" in classifiers
    assert not any(one.startswith("License ::") for one in classifiers)  # PEP 639 forbids both
    assert about["Description-Content-Type"] == "text/markdown"


def test_help_lists_the_commands_and_a_wrong_one_is_reported(installed: Installed) -> None:
    printed = installed.lab("--help")
    assert [line.split()[0] for line in printed.splitlines() if line.startswith("  ")] == list(COMMANDS)
    for wrong in (["descibe"], [], ["src/train.py", "model=lenet"]):
        (line,) = installed.lab(*wrong, status=2).splitlines()
        assert line.startswith("error: ")
        assert line.endswith(f"choose from: {', '.join(COMMANDS)}")
    loaded = installed.run("python", "-X", "importtime", "-m", "alexnet_lab", "--help")
    assert not [name for name in ("hydra", "omegaconf", "torch", "lightning", "yaml") if f"| {name}\n" in loaded]


def test_options_and_errors_name_the_program(installed: Installed) -> None:
    assert "\nalexnet-lab compare runs=logs/train" in installed.lab("compare", "--help")
    as_module = installed.run("python", "-m", "alexnet_lab", "describe", "--help")
    assert "\npython -m alexnet_lab describe model=" in as_module
    printed = installed.lab("train", "run=a,b", status=2)
    assert "alexnet-lab train 'run=\"a,b\"'" in printed
    needs = installed.lab("train", "-m", "hydra/launcher=slurm", status=2)
    assert f"uv pip install --python {installed.environment}/bin/python 'alexnet-lab[slurm]'" in needs
    assert "name finished ones: add=" in installed.lab("results", status=2)
    assert list(installed.folder.iterdir()) == []


@pytest.fixture(scope="module")
def quickstart(installed: Installed) -> str:
    """What the quickstart prints; five batches."""
    if not SYSTEM_DATA.exists():
        pytest.skip("needs Debian's package dataset-fashion-mnist")
    short = ("trainer.limit_train_batches=5", *ONE_BATCH, "run=first")
    return installed.lab("train", "experiment=quickstart", *short)


def test_quickstart_trains_evaluates_and_predicts_in_the_users_folder(installed: Installed, quickstart: str) -> None:
    result = installed.result("runs/first")
    assert (result["status"], result["images"]["train"]) == ("finished", 80)
    assert result["git"] == {"version": metadata(installed)["Version"]}
    recorded = yaml.safe_load((installed.folder / "logs/train/runs/first/config.yaml").read_text())
    assert recorded["data"]["dir"] == f"{installed.folder}/data/fashion_mnist"  # also valid from another folder
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=installed.folder, capture_output=True, check=True)
    records = [path.read_bytes() for path in installed.folder.rglob("*") if path.is_file()]
    assert any(b"quickstart" in record for record in records)
    assert not any(head.stdout.strip() in record for record in records), "the revision of the user's own repository"
    assert f"folder: {installed.folder}/logs/train/runs/first\n" in quickstart
    checkpoint = "logs/train/runs/first/checkpoints/last.ckpt"
    limits = ("trainer.limit_test_batches=1", "data.eval_batch_size=16")
    evaluated = installed.lab("evaluate", f"checkpoint={checkpoint}", *limits)
    assert f"{result['final']['test/top1']:.4f}" in evaluated
    inner = installed.folder / "pictures"
    inner.mkdir()
    Image.new("RGB", (40, 30), "red").save(inner / "cat.jpg")
    printed = installed.lab("predict", f"checkpoint=../{checkpoint}", "images=cat.jpg", cwd=inner)
    assert "cat.jpg" in printed
    assert [path.name for path in inner.iterdir()] == ["cat.jpg"]


def test_ranks_and_sweeps_use_the_home_but_import_nothing_from_it(installed: Installed) -> None:
    inner = installed.folder / "inner"
    inner.mkdir()
    (installed.folder / "numbers.py").write_text("raise SystemExit('the numbers.py of the user')")  # torch imports it
    (installed.folder / "alexnet_lab").mkdir()
    (installed.folder / "alexnet_lab/__init__.py").write_text("raise SystemExit('the alexnet_lab of the user')")
    limits = ("trainer.max_epochs=100000", "trainer.max_time=00:00:00:03")
    printed = installed.lab(
        "train", *TINY, *limits, "trainer=ddp_cpu", "run=two", cwd=inner, status=3, ALEXNET_LAB_HOME=".."
    )
    assert "interrupted (max_time); continue with: alexnet-lab train resume=" in printed
    assert installed.result("runs/two")["world_size"] == 2
    installed.lab("train", "-m", *TINY, "seed=0,1", "run=both", ALEXNET_LAB_HOME=str(installed.folder), cwd=inner)
    sweep = installed.folder / "logs" / "train" / "multiruns" / "both"
    results = [json.loads(path.read_text()) for path in sweep.glob("*/result.json")]
    assert [result["git"] for result in results] == [{"version": metadata(installed)["Version"]}] * 2
    assert os.listdir(sweep / ".code") == ["alexnet_lab"]
    assert (sweep / ".code/alexnet_lab/conf/train.yaml").exists()
    assert list(inner.iterdir()) == []
    compared = installed.lab("compare", "runs=logs/train")
    assert "runs/two" in compared
    assert "multiruns/both" in compared
    refused = installed.lab("train", *TINY, status=2, ALEXNET_LAB_HOME="nowhere")
    assert refused.splitlines() == [
        f"error: ALEXNET_LAB_HOME=nowhere: there is no such folder; to create it: mkdir -p {installed.folder}/nowhere"
    ]
