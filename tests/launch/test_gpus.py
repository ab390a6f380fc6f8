"""A GPU that torch cannot use is reported in one line, before anything is trained."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from alexnet_lab.commands import predict
from alexnet_lab.errors import UserError
from alexnet_lab.launch import gpus, planning, running
from alexnet_lab.launch.gpus import Gpus, check

TOO_OLD = (
    "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver by downloading "
    "and installing a new version from the URL: http://www.nvidia.com/Download/index.aspx"
)
BUILD = "torch 2.14.1+cu130 needs NVIDIA driver R580 or newer and compute capability 7.5 or newer"
WORKS = Gpus(1, "", (9, 0), False, "2.14.1+cu130", "13.0")
NONE = Gpus(0, "Found no NVIDIA driver on your system", None, False, "2.14.1+cu130", "13.0")


@pytest.fixture
def old_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def init() -> None:
        raise RuntimeError(TOO_OLD)

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", init)
    monkeypatch.setattr(torch, "__version__", "2.14.1+cu130")
    monkeypatch.setattr(torch.version, "cuda", "13.0")


@pytest.mark.usefixtures("old_driver")
@pytest.mark.parametrize("accelerator", ["auto", "gpu", "cuda"])
def test_too_old_driver_is_one_line_with_torchs_reason_and_the_driver_needed(accelerator: str) -> None:
    with pytest.raises(UserError) as refused:
        check(accelerator, gpus.look())
    assert str(refused.value) == (
        "torch cannot use the GPU: The NVIDIA driver on your system is too old (found version 11040); "
        f"{BUILD}; trainer=cpu uses the CPU"
    )
    check("cpu", gpus.look())


@pytest.mark.usefixtures("old_driver")
def test_rank_is_refused_and_the_name_is_free(settings: Any, refusal: Any) -> None:
    made = settings("model=lenet", "data=synthetic", "logger=none", "trainer=ddp", "trainer.devices=1")
    assert refusal(made).startswith("error: torch cannot use the GPU: The NVIDIA driver on your system is too old")


@pytest.mark.usefixtures("old_driver")
def test_images_are_not_classified_on_the_cpu_without_a_word() -> None:
    with pytest.raises(UserError, match=r"^torch cannot use the GPU: .*; accelerator=cpu uses the CPU$"):
        predict._fabric("auto", "32-true")


def test_single_run_is_refused_before_the_runs_name_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gpus, "_signs", lambda: True)
    monkeypatch.setattr(gpus, "ask", lambda: Gpus(2, "too old", None, False, "2.14.1+cu130", "13.0"))
    plan = planning.Plan(tmp_path, {"trainer": {"accelerator": "auto", "devices": "auto"}})
    with pytest.raises(UserError, match="torch cannot use the GPU: too old"):
        running.run(plan)
    assert list(tmp_path.iterdir()) == []


def test_too_old_gpu_is_named() -> None:
    pascal = Gpus(1, "", (6, 1), False, "2.14.1+cu130", "13.0")
    with pytest.raises(
        UserError, match=rf"the GPU has compute capability 6\.1; {BUILD.replace('+', '.')}; trainer=cpu"
    ):
        check("auto", pascal)
    check("auto", WORKS)


@pytest.mark.parametrize("accelerator", ["gpu", "cuda"])
def test_missing_gpu_is_refused_where_it_is_asked_for(accelerator: str) -> None:
    with pytest.raises(UserError) as refused:
        check(accelerator, NONE)
    assert str(refused.value) == (
        f"trainer.accelerator={accelerator}: torch finds no GPU here: Found no NVIDIA driver on your system; {BUILD}; "
        "trainer=cpu uses the CPU"
    )
    check("auto", NONE)


def test_apples_gpu_is_a_gpu() -> None:
    apple = Gpus(0, "Torch not compiled with CUDA enabled", None, True, "2.14.1", None)
    check("gpu", apple)
    with pytest.raises(
        UserError, match=r"torch finds no GPU here: Torch not compiled with CUDA enabled; torch 2\.14\.1;"
    ):
        check("cuda", apple)


def test_error_number_of_cuda_is_kept() -> None:
    long = (
        "Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions before calling NumCudaDevices() "
        "that might have already set an error? Error 803: system has unsupported display driver / cuda combination"
    )
    assert gpus._short(long) == "Error 803: system has unsupported display driver / cuda combination"


def test_another_process_answers_as_torch_does(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus.ask.cache_clear()
    answer = json.dumps(vars(WORKS))
    monkeypatch.setattr(
        subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 0, f"noise\n{answer}\n", "")
    )
    assert gpus.ask() == WORKS
    gpus.ask.cache_clear()


def test_torch_that_cannot_be_asked_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(command: list[str], **_: Any) -> None:
        raise subprocess.CalledProcessError(
            1, command, "", "Traceback ...\nImportError: libcudart.so.13: no such file\n"
        )

    gpus.ask.cache_clear()
    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(
        UserError, match=r"^torch does not report its GPUs: ImportError: libcudart\.so\.13: no such file;"
    ):
        gpus.ask()
    gpus.ask.cache_clear()
