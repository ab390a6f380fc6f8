"""A run's precision is chosen at its start, recorded and printed, the same on all ranks, and kept when it continues."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import initialize_config_dir
from omegaconf import DictConfig
from PIL import Image

from alexnet_lab import places
from alexnet_lab.commands.evaluate import evaluate
from alexnet_lab.commands.export import export
from alexnet_lab.commands.predict import predict
from alexnet_lab.config.by_device import Device
from alexnet_lab.errors import FINISHED, UserError
from alexnet_lab.launch import ownership, precision, rank, resume, starting
from alexnet_lab.launch.stopping import StopRequests
from alexnet_lab.runs import folders
from alexnet_lab.runs.run import read_run

CPU, AMPERE, TURING = Device("cpu"), Device("cuda", "NVIDIA A100", True), Device("cuda", "Tesla T4")
MIXED, FULL = ("bf16-mixed", "high"), ("32-true", "highest")
TINY = ("model=lenet", "data=synthetic", "data.train_size=32", "data.test_size=16", "logger=none", "trainer=cpu")
SHORT = ("trainer.max_epochs=1", "callbacks.pictures=null", "data.batch_size=16", "data.eval_batch_size=16")

Settings = Callable[..., dict[str, Any]]


def on(monkeypatch: pytest.MonkeyPatch, device: Device, number: int = 0) -> None:
    monkeypatch.setattr(precision, "device_of", lambda trainer: device)
    monkeypatch.setenv("RANK", str(number))


def both(settings: dict[str, Any]) -> tuple[Any, Any]:
    return settings["trainer"]["precision"], settings["matmul_precision"]


def recorded(folder: Path) -> tuple[str, str]:
    return both(folders.read_config(folder))


def start(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    ownership.claim(folder, settings)
    return precision.choose(settings, folder)


def test_gpu_with_bfloat16_trains_in_it_and_one_line_reports_it(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    on(monkeypatch, AMPERE)
    start(tmp_path, settings(*TINY))
    assert recorded(tmp_path) == MIXED
    line = "trainer.precision=bf16-mixed matmul_precision=high: the default on NVIDIA A100"
    assert [entry.getMessage() for entry in caplog.records] == [line]


def test_cpu_and_chosen_precision_get_no_line(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    on(monkeypatch, CPU)
    start(tmp_path, settings(*TINY))
    assert recorded(tmp_path) == FULL
    on(monkeypatch, AMPERE)
    chosen = settings(*TINY, "trainer.precision=64-true", "matmul_precision=highest")
    assert precision.choose(chosen, tmp_path) == chosen
    assert not caplog.records


def test_float16_on_a_cpu_is_recorded_as_bfloat16_with_a_warning(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    on(monkeypatch, CPU)
    start(tmp_path, settings(*TINY, "trainer.precision=16-mixed"))
    assert recorded(tmp_path)[0] == "bf16-mixed"
    assert [entry.getMessage() for entry in caplog.records] == [
        "trainer.precision=16-mixed: float16 needs a GPU; using bf16-mixed on the CPU"
    ]


def test_other_ranks_wait_for_what_rank_0_records(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    composed = settings(*TINY)
    ownership.claim(tmp_path, composed)
    on(monkeypatch, AMPERE, 1)
    found: list[dict[str, Any]] = []
    other = threading.Thread(target=lambda: found.append(precision.choose(composed, tmp_path)))
    other.start()
    other.join(2 * precision.LOOK_SECONDS)
    assert other.is_alive()
    on(monkeypatch, AMPERE, 0)
    of_rank_0 = precision.choose(composed, tmp_path)
    other.join()
    assert found == [of_rank_0]


@pytest.mark.parametrize(
    ("of_rank_0", "here", "line"),
    [
        (
            AMPERE,
            TURING,
            r"^trainer\.precision is bf16-mixed by default on the machine of rank 0, but 32-true on Tesla",
        ),
        (TURING, AMPERE, r"^trainer\.precision is 32-true .* but bf16-mixed on NVIDIA A100 of rank 3: choose one"),
        (AMPERE, CPU, r"but 32-true on the CPU of rank 3: .* trainer\.precision=32-true$"),
    ],
)
def test_machines_with_other_defaults_are_refused_in_one_line(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of_rank_0: Device, here: Device, line: str
) -> None:
    composed = settings(*TINY)
    on(monkeypatch, of_rank_0)
    start(tmp_path, composed)
    on(monkeypatch, here, 3)
    with pytest.raises(UserError, match=line):
        precision.choose(composed, tmp_path)
    assert precision.choose(folders.read_config(tmp_path), tmp_path)["trainer"]["precision"] == recorded(tmp_path)[0]


def test_double_precision_on_apples_gpu_is_refused(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(monkeypatch, Device("mps"))
    with pytest.raises(UserError, match=r"^trainer\.precision=64-true: Apple's GPU has no float64; trainer=cpu"):
        start(tmp_path, settings(*TINY, "trainer.precision=64-true"))


def continued(folder: Path, *overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(places.CONF), version_base="1.3"):
        return resume.continued(dict(read_run(folder).config), [*overrides], str(folder))


@pytest.mark.parametrize(("first", "second"), [(AMPERE, CPU), (CPU, AMPERE), (AMPERE, TURING), (TURING, AMPERE)])
@pytest.mark.parametrize(
    "overrides", [(), ("trainer.max_epochs=9",), ("trainer=ddp_cpu",), ("trainer=default", "trainer.precision=null")]
)
def test_continued_run_keeps_its_precision_on_any_device(
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    first: Device,
    second: Device,
    overrides: tuple[str, ...],
) -> None:
    on(monkeypatch, first)
    start(tmp_path, settings(*TINY))
    before = recorded(tmp_path)
    on(monkeypatch, second)
    new = continued(tmp_path, *overrides)
    chosen = precision.choose(new, tmp_path)
    assert chosen == new
    assert both(chosen) == before
    assert continued(tmp_path, "trainer.precision=64-true")["trainer"]["precision"] == "64-true"


@pytest.mark.parametrize(("accelerator", "products"), [("cpu", "highest"), ("cuda", "torch")])
@pytest.mark.parametrize(("literal", "meant"), [("32-true", "32-true"), (None, "32-true"), ("bf16-mixed",) * 2])
def test_run_of_an_older_version_keeps_what_it_computed_in(
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    accelerator: str,
    products: str,
    literal: str | None,
    meant: str,
) -> None:
    older = settings(*TINY)
    del older["matmul_precision"]
    older["trainer"]["precision"] = literal
    ownership.claim(tmp_path, older)
    (tmp_path / folders.RESULT).write_text(
        f'{{"status": "interrupted", "hardware": {{"accelerator": "{accelerator}"}}}}'
    )
    on(monkeypatch, AMPERE)
    for new in (continued(tmp_path), continued(tmp_path, "trainer.max_epochs=9")):
        assert both(precision.choose(new, tmp_path)) == (meant, products)


@pytest.fixture
def trained_in_bf16(settings: Settings, as_in_a_rank: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that trains on the CPU as on a GPU with bfloat16."""
    on(monkeypatch, AMPERE)
    monkeypatch.setattr(rank, "_log_to", lambda path, speak: None)
    folder = tmp_path / "run"
    folder.mkdir()
    composed = settings(*TINY, *SHORT)
    starting.prepare(folder, composed, continues=False)
    with StopRequests() as stop:
        assert rank.run_rank(folder, composed, None, stop) == FINISHED
    return folder


def test_checkpoint_of_such_a_run_is_evaluated_predicted_and_exported(
    trained_in_bf16: Path, composed: Callable[..., DictConfig], tmp_path: Path
) -> None:
    checkpoint = trained_in_bf16 / folders.LAST
    config = torch.load(checkpoint, weights_only=True)["config"]
    assert config == folders.read_config(trained_in_bf16)
    assert both(config) == MIXED
    assert "trainer.precision=bf16-mixed" in config["overrides"]
    given = f"checkpoint={trained_in_bf16 / folders.BEST}"
    final = read_run(trained_in_bf16).metric("test/loss")
    assert evaluate(composed("evaluate", given, "trainer=cpu"))["test/loss"] == final
    assert evaluate(composed("evaluate", given, "trainer=cpu", "trainer.precision=32-true"))["test/loss"] != final
    Image.new("RGB", (40, 30), (200, 30, 60)).save(tmp_path / "red.png")
    assert predict(composed("predict", given, f"images={tmp_path / 'red.png'}", "accelerator=cpu"))
    assert export(composed("export", given, "format=state_dict", f"out={tmp_path / 'net.pt'}")).agrees
