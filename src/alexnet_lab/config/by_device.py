"""The settings that follow the device where they are null: `trainer.precision` and `matmul_precision`.

`config.yaml` has their values for the device on which the run began. Imports torch only where it is needed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alexnet_lab import distributed
from alexnet_lab.errors import UserError

FULL, MIXED = "32-true", "bf16-mixed"
FLOAT16_MIXED = ("16-mixed", "16")
FLOAT64 = ("64-true", "64")
PRECISION, PRODUCTS = "trainer.precision", "matmul_precision"
WITH_TF32 = (8, 0)
"""The oldest compute capability that multiplies in bfloat16 and TF32."""
FEWEST_PER_GPU = 128


@dataclass(frozen=True)
class Device:
    """What the ranks of this machine compute on."""

    kind: str
    """The name of its type in torch: cpu, cuda, mps."""
    name: str = ""
    has_bf16: bool = False
    """Whether all its GPUs that the run uses multiply in bfloat16 and TF32."""


def device_of(trainer: Mapping[str, Any]) -> Device:
    """The device that this trainer uses; torch can use its GPUs, see `launch.gpus.check`."""
    import torch

    accelerator = trainer.get("accelerator")
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return Device("mps")
    if accelerator not in ("auto", "gpu", "cuda") or not torch.cuda.is_available():
        return Device("cpu")
    chosen = _indices(trainer.get("devices"), torch.cuda.device_count())
    capable = all(torch.cuda.get_device_capability(index) >= WITH_TF32 for index in chosen)
    own = chosen[min(distributed.local_rank(), len(chosen) - 1)]
    return Device("cuda", torch.cuda.get_device_name(own), capable or torch.version.hip is not None)


def _indices(devices: Any, count: int) -> list[int]:
    """The GPUs that `trainer.devices` chooses, of `count`; all where it is wrong, which is reported elsewhere."""
    listed = devices.split(",") if isinstance(devices, str) and "," in devices else devices
    if isinstance(listed, list):
        chosen = [int(one) for one in listed if str(one).strip().isdecimal()]
    else:
        chosen = [*range(int(devices) if str(devices).isdecimal() else count)]
    return [index for index in chosen if index < count] or [*range(count)]


def values(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run that follow the device, by dotted key."""
    return {PRECISION: settings["trainer"].get("precision"), PRODUCTS: settings.get(PRODUCTS)}


def with_values(settings: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """`settings` with the values of `new` where they are null."""
    here = {key: new.get(key) if value is None else value for key, value in values(settings).items()}
    return {**settings, "trainer": {**settings["trainer"], "precision": here[PRECISION]}, PRODUCTS: here[PRODUCTS]}


def resolved(settings: Mapping[str, Any], device: Device) -> dict[str, Any]:
    """`settings` with the precision of `device` where it is null.

    A precision other than that of a CPU is also added to `overrides`, so that they describe the run on any device;
    that of products only where the network computes in float32.
    """
    of_cpu = {PRECISION: FULL, PRODUCTS: "highest"}
    before = values(settings)
    is_fast = device.has_bf16 and str(before[PRECISION]) not in FLOAT64  # which resizes its input as on a CPU
    found = with_values(settings, {PRECISION: MIXED, PRODUCTS: "high"} if is_fast else of_cpu)
    if device.kind == "cpu" and str(before[PRECISION]) in FLOAT16_MIXED:
        found["trainer"]["precision"] = MIXED  # lightning would do so, too, but its warning is not recorded
    here = values(found)
    added = {key: value for key, value in here.items() if before[key] != value and value != of_cpu[key]}
    if str(here[PRECISION]) not in (FULL, "32"):
        added.pop(PRODUCTS, None)
    others = [text for text in settings["overrides"] if text.partition("=")[0].lstrip("+") not in added]
    return {**found, "overrides": [*others, *(f"{key}={value}" for key, value in added.items())]}


def check_float64(precision: Any, kind: str, option: str, cpu: str) -> None:
    """Refuse double precision on Apple's GPU: raises UserError with this `option` and the one that selects the CPU."""
    if kind == "mps" and str(precision) in FLOAT64:
        raise UserError(f"{option}={precision}: Apple's GPU has no float64; {cpu} uses the CPU")


def few_images_per_gpu(batch_size: int, replicas: int, kind: str) -> str:
    """A hint for a run on several GPUs whose shares of a batch are small; otherwise empty."""
    share = batch_size / replicas
    if kind != "cuda" or replicas == 1 or share >= FEWEST_PER_GPU:
        return ""
    return (
        f"data.batch_size={batch_size} is {share:.4g} images on each of {replicas} GPUs: below {FEWEST_PER_GPU}, "
        f"communication will dominate; data.batch_size={FEWEST_PER_GPU * replicas} and a larger learning rate use the "
        "GPUs better, see docs/training.md#large-batches"
    )


def use_recorded(options: Mapping[str, Any], recorded: Mapping[str, Any], option: str, cpu: str) -> dict[str, Any]:
    """Compute in the precision of a run's `recorded` settings; returns the `options` of a trainer with it, where null.

    Raises:
        UserError: see `check_float64`.
    """
    known = values(recorded)
    set_matmul_precision(known[PRODUCTS])
    precision = known[PRECISION] if options.get("precision") is None else options["precision"]
    check_float64(precision, device_of(options).kind, option, cpu)
    return {**options, "precision": precision}


def set_matmul_precision(value: str | None) -> None:
    """Set the precision in which float32 is multiplied, in convolutions and linear layers alike.

    `highest` is float32, `high` TF32 where the device has it, `medium` also bfloat16 on a CPU. `torch`, or None, is
    PyTorch's own choice: TF32 in the convolutions of a GPU, float32 elsewhere.
    """
    import torch

    known = value or "torch"
    # The older of torch's two interfaces, since Lightning and torch.compile ask it.
    torch.set_float32_matmul_precision("highest" if known == "torch" else known)
    torch.backends.cudnn.allow_tf32 = known != "highest"
    of_cpu = {"high": "tf32", "medium": "bf16"}.get(known, "none")
    torch.backends.mkldnn.conv.fp32_precision = of_cpu  # type: ignore[attr-defined]
