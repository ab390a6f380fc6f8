"""Checkpoints from W&B: where they are downloaded to, and messages if the download fails."""

import shutil
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb
from wandb_server import Server

from alexnet_lab.errors import UserError
from alexnet_lab.loggers import wandb_artifacts
from alexnet_lab.loggers.wandb import wandb_logger
from alexnet_lab.loggers.wandb_artifacts import download
from alexnet_lab.loggers.wandb_service import end_service
from alexnet_lab.runs import checkpoint, references

BEST = "wandb:entity/project/model-abc:best"


@pytest.mark.parametrize(
    "name", ["project/model:best", "entity/project/model", "entity/project/model:", "", "a/b/c/d:e"]
)
def test_malformed_artifact_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="wandb:ENTITY/PROJECT/ARTIFACT:best"):
        download(f"wandb:{name}", tmp_path)
    with pytest.raises(UserError, match=f"^init=wandb:{name}: expected"):
        download(f"wandb:{name}", tmp_path, "init")


def test_missing_login_is_reported_in_one_line(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model-abc:best: not logged in to W&B; run `wandb login` first"):
        download(BEST, tmp_path)


@pytest.mark.usefixtures("server")
def test_missing_artifact_is_reported_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"model-abc:best: the download from W&B failed; check the network and the name"
    ):
        download(BEST, tmp_path)


def test_missing_network_is_reported_in_one_line(server: Server, bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bare.setattr(wandb_artifacts, "ANSWER_SECONDS", 1)
    bare.setenv("WANDB_HTTP_TIMEOUT", "1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        bare.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{free.getsockname()[1]}")
        end_service()
        with pytest.raises(UserError, match="model-abc:best: the download from W&B failed; check the network"):
            download(BEST, tmp_path)


def given(monkeypatch: pytest.MonkeyPatch, *files: Path) -> list[tuple[str, str]]:
    """A stand-in for W&B with one artifact that contains these files; yields the requests it received."""
    asked: list[tuple[str, str]] = []

    def artifact(name: str, type: str) -> Any:
        asked.append((name, type))

        def fetch(root: str, skip_cache: bool) -> None:
            Path(root).mkdir(parents=True)
            for file in files:
                shutil.copy(file, root)

        return SimpleNamespace(entity="entity", project="project", name="model-abc:v3", download=fetch)

    monkeypatch.setattr(wandb, "Api", lambda timeout: SimpleNamespace(artifact=artifact))
    return asked


def test_checkpoint_is_downloaded_to_a_folder_of_its_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "best.ckpt").write_text("weights")
    asked = given(monkeypatch, tmp_path / "best.ckpt")
    found = download(BEST, tmp_path / "cache")
    assert found == tmp_path / "cache/entity/project/model-abc-v3/best.ckpt"
    assert found.read_text() == "weights"
    assert asked == [("entity/project/model-abc:best", "model")]


def test_artifact_without_a_checkpoint_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch)
    with pytest.raises(UserError, match="it contains 0"):
        download(BEST, tmp_path / "cache")


def test_commands_read_a_wandb_checkpoint_like_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "best.ckpt"
    path.write_text("no checkpoint")
    given(monkeypatch, path)
    monkeypatch.setattr(references.places, "home", lambda: tmp_path)
    with pytest.raises(UserError, match=r"model-abc-v3/best\.ckpt: not a file of weights"):
        checkpoint.read_checkpoint(Path(BEST))


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize(
    ("mode", "log_model", "uploads"), [("offline", True, 0), ("online", True, 1), ("online", False, 0)]
)
def test_best_checkpoint_is_uploaded_if_online_and_requested(
    mode: Any, log_model: bool, uploads: int, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Path] = []
    monkeypatch.setattr("alexnet_lab.loggers.wandb.upload", lambda run, checkpoint: given.append(checkpoint))
    logger = wandb_logger("run", mode=mode, log_model=log_model)
    logger.log_metrics({"val/top1": 0.5, "epoch": 0}, step=1)
    logger.finish(checkpoint=tmp_path / "best.ckpt")
    assert given == [tmp_path / "best.ckpt"] * uploads


def test_upload_names_the_artifact_after_the_run_and_a_failure_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "best.ckpt"
    path.write_text("weights")
    logged: list[Any] = []

    def log_artifact(artifact: Any, aliases: list[str]) -> Any:
        logged.append((artifact.name, artifact.type, aliases, list(artifact.manifest.entries)))

        def wait(timeout: int) -> None:
            raise TimeoutError("too slow")

        return SimpleNamespace(wait=wait)

    run: Any = SimpleNamespace(id="abc", name="lenet", entity="e", project="p", log_artifact=log_artifact)
    wandb_artifacts.upload(run, path)
    assert logged == [("model-abc", "model", ["best"], ["best.ckpt"])]
    assert caplog.messages == [f"W&B: the checkpoint {path} was not uploaded (too slow)"]
