"""Which precision a run has by default, on each kind of device, and in which precision float32 is multiplied."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.nn.functional import conv2d, linear

from alexnet_lab.config.by_device import (
    Device,
    check_float64,
    device_of,
    few_images_per_gpu,
    resolved,
    set_matmul_precision,
    use_recorded,
    values,
    with_values,
)
from alexnet_lab.errors import UserError

CPU, MPS = Device("cpu"), Device("mps")
AMPERE, TURING = Device("cuda", "A100", True), Device("cuda", "T4", False)


@pytest.fixture(autouse=True)
def _torch_as_it_was() -> Iterator[None]:
    yield
    set_matmul_precision(None)


def choice(device: Device, *overrides: str, **trainer: Any) -> tuple[Any, Any, list[str]]:
    products = trainer.pop("matmul_precision", None)
    found = resolved({"trainer": trainer, "matmul_precision": products, "overrides": list(overrides)}, device)
    return found["trainer"]["precision"], found["matmul_precision"], found["overrides"]


@pytest.mark.parametrize("device", [CPU, MPS, TURING], ids=["cpu", "mps", "turing"])
def test_float32_is_the_default_on_devices_without_bfloat16(device: Device) -> None:
    assert choice(device, "model=lenet") == ("32-true", "highest", ["model=lenet"])
    assert choice(device, precision=None, matmul_precision=None) == ("32-true", "highest", [])


def test_bf16_mixed_is_the_default_on_gpus_with_bfloat16_and_part_of_the_recorded_command() -> None:
    told = ["trainer.precision=bf16-mixed"]
    assert choice(AMPERE, "model=lenet") == ("bf16-mixed", "high", ["model=lenet", *told])
    assert choice(AMPERE, "trainer.precision=null", precision=None) == ("bf16-mixed", "high", told)


@pytest.mark.parametrize("device", [CPU, MPS, TURING, AMPERE], ids=["cpu", "mps", "turing", "ampere"])
@pytest.mark.parametrize("precision", ["32-true", 32, "64-true", "bf16-mixed", "bf16-true", "16-true"])
def test_chosen_precision_is_kept_on_every_device(device: Device, precision: Any) -> None:
    given = ["matmul_precision=medium"]
    assert choice(device, *given, precision=precision, matmul_precision="medium") == (precision, "medium", given)


@pytest.mark.parametrize("precision", ["64-true", 64])
def test_input_of_a_float64_run_is_resized_in_float32(precision: Any) -> None:
    assert choice(AMPERE, precision=precision) == (precision, "highest", [])


@pytest.mark.parametrize(
    ("precision", "told"), [("32-true", True), (32, True), ("bf16-true", False), ("16-true", False)]
)
def test_tf32_is_the_default_on_gpus_and_told_where_the_network_computes_in_float32(precision: Any, told: bool) -> None:
    added = ["matmul_precision=high"] if told else []
    assert choice(AMPERE, precision=precision) == (precision, "high", added)


@pytest.mark.parametrize("precision", ["16-mixed", 16, "16"])
def test_float16_mixed_is_recorded_as_what_a_cpu_does(precision: Any) -> None:
    given = choice(CPU, f"trainer.precision={precision}", precision=precision)
    assert given == ("bf16-mixed", "highest", ["trainer.precision=bf16-mixed"])  # also when a GPU continues the run
    assert choice(TURING, precision=precision)[0] == choice(AMPERE, precision=precision)[0] == precision


def test_resolved_settings_are_unchanged_on_any_other_device() -> None:
    once = resolved({"trainer": {"max_epochs": 3}, "overrides": []}, AMPERE)
    assert resolved(once, CPU) == once
    of_cpu = resolved({"trainer": {"max_epochs": 3}, "overrides": []}, CPU)
    assert resolved(of_cpu, AMPERE) == of_cpu


def test_values_that_are_given_stay_and_others_are_the_recorded_ones() -> None:
    recorded = {"trainer": {"precision": "bf16-mixed"}, "matmul_precision": "high"}
    assert values(recorded) == {"trainer.precision": "bf16-mixed", "matmul_precision": "high"}
    composed = {"seed": 1, "trainer": {"max_epochs": 5, "precision": None}, "matmul_precision": None}
    assert with_values(composed, values(recorded)) == {
        "seed": 1,
        "trainer": {"max_epochs": 5, "precision": "bf16-mixed"},
        "matmul_precision": "high",
    }
    given = {"trainer": {"precision": "64-true"}, "matmul_precision": "highest"}
    assert with_values(given, values(recorded)) == given


def gpus(monkeypatch: pytest.MonkeyPatch, *capabilities: tuple[int, int]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(capabilities))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capabilities[index])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"GPU {index}")


@pytest.mark.parametrize("accelerator", ["auto", "gpu", "cuda"])
@pytest.mark.parametrize(
    ("devices", "local_rank", "name", "has_bf16"),
    [
        (1, 0, "GPU 0", True),
        ("1", 0, "GPU 0", True),
        (2, 1, "GPU 1", True),
        (3, 2, "GPU 2", False),
        ("auto", 0, "GPU 0", False),
        (-1, 1, "GPU 1", False),
        ("-1", 2, "GPU 2", False),
        ([0, 1], 1, "GPU 1", True),
        ([2], 0, "GPU 2", False),
        ("1,", 0, "GPU 1", True),
        ("1,0", 1, "GPU 0", True),
        ("2,1", 0, "GPU 2", False),
        ([7], 0, "GPU 0", False),
        (None, 0, "GPU 0", False),
    ],
)
def test_all_chosen_gpus_must_have_bfloat16(
    monkeypatch: pytest.MonkeyPatch, accelerator: str, devices: Any, local_rank: int, name: str, has_bf16: bool
) -> None:
    gpus(monkeypatch, (8, 0), (9, 0), (7, 5))
    monkeypatch.setenv("LOCAL_RANK", str(local_rank))
    assert device_of({"accelerator": accelerator, "devices": devices}) == Device("cuda", name, has_bf16)


@pytest.mark.parametrize("accelerator", ["cpu", "tpu", None, {"_target_": "mine.Accelerator"}])
def test_no_gpu_is_asked_for_another_accelerator(monkeypatch: pytest.MonkeyPatch, accelerator: Any) -> None:
    gpus(monkeypatch, (9, 0))
    monkeypatch.delattr(torch.cuda, "get_device_capability")
    assert device_of({"accelerator": accelerator}) == CPU


def test_machine_without_a_gpu_trains_on_the_cpu() -> None:
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("there is a GPU here")
    assert device_of({"accelerator": "auto", "devices": 1}) == device_of({}) == CPU
    assert not torch.cuda.is_initialized()


def test_double_precision_on_apples_gpu_is_refused_in_one_line() -> None:
    for precision in ("64-true", 64, "64"):
        with pytest.raises(UserError, match=r"^trainer\.precision=64.*: Apple's GPU has no float64; trainer=cpu uses"):
            check_float64(precision, "mps", "trainer.precision", "trainer=cpu")
        check_float64(precision, "cuda", "", "")
    check_float64("32-true", "mps", "", "")


@pytest.mark.parametrize(
    ("batch_size", "replicas", "kind", "begins"),
    [
        (128, 8, "cuda", "data.batch_size=128 is 16 images on each of 8 GPUs: below 128, communication will dominate"),
        (256, 3, "cuda", "data.batch_size=256 is 85.33 images on each of 3 GPUs"),
        (1024, 8, "cuda", ""),
        (128, 1, "cuda", ""),
        (16, 1, "cuda", ""),
        (32, 2, "cpu", ""),
    ],
)
def test_small_share_of_a_batch_on_several_gpus_gets_a_hint(
    batch_size: int, replicas: int, kind: str, begins: str
) -> None:
    hint = few_images_per_gpu(batch_size, replicas, kind)
    assert hint.startswith(begins)
    assert bool(hint) is bool(begins)
    assert "\n" not in hint
    if hint:
        assert f"data.batch_size={128 * replicas} " in hint


def facts_of_torch() -> tuple[Any, ...]:
    """Each of torch's own names for the precision of float32; a contradiction between two of them raises an error."""
    return (
        torch.get_float32_matmul_precision(),
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cuda.matmul.fp32_precision == "tf32",
        torch.backends.cudnn.allow_tf32,
        torch.backends.cudnn.conv.fp32_precision == "tf32",
    )


@pytest.mark.parametrize(
    ("value", "matmul", "tf32_in_linear", "tf32_in_convolutions"),
    [
        ("highest", "highest", False, False),
        ("high", "high", True, True),
        ("medium", "medium", True, True),
        ("torch", "highest", False, True),
        (None, "highest", False, True),
    ],
)
def test_convolutions_and_linear_layers_multiply_in_one_precision(
    recwarn: pytest.WarningsRecorder, value: str | None, matmul: str, tf32_in_linear: bool, tf32_in_convolutions: bool
) -> None:
    for before in ("medium", "highest", None, "high"):  # an earlier run in this process leaves nothing
        set_matmul_precision(before)
        set_matmul_precision(value)
        assert facts_of_torch() == (matmul, *2 * (tf32_in_linear,), *2 * (tf32_in_convolutions,))
    assert not recwarn.list


def test_highest_is_what_torch_does_on_a_cpu_by_default() -> None:
    torch.manual_seed(0)
    images, weight = torch.randn(2, 8, 16, 16), torch.randn(16, 8, 3, 3)

    def outputs(value: str | None) -> tuple[torch.Tensor, torch.Tensor]:
        set_matmul_precision(value)
        return conv2d(images, weight), linear(images.flatten(1), weight.view(16, -1).repeat(1, 29)[:, :2048])

    for one, other in zip(outputs("highest"), outputs(None), strict=True):
        assert torch.equal(one, other)


def test_checkpoint_is_used_in_its_recorded_precision() -> None:
    recorded = {"trainer": {"precision": "bf16-mixed"}, "matmul_precision": "high"}
    options = {"accelerator": "cpu", "precision": None}
    assert use_recorded(options, recorded, "", "") == {"accelerator": "cpu", "precision": "bf16-mixed"}
    assert torch.get_float32_matmul_precision() == "high"
    given = {**options, "precision": "32-true"}
    assert use_recorded(given, recorded, "", "") == given
    use_recorded(options, {"trainer": {"precision": "32-true"}}, "", "")  # of an older version
    assert facts_of_torch()[0] == "highest"
    assert torch.backends.cudnn.allow_tf32
