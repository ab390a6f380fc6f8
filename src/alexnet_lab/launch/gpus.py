"""Checks whether torch can use the GPUs of this machine, and explains why not.

Imports nothing heavy. A process without torch asks another process, `python -m alexnet_lab.launch.gpus`.
"""

import json
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from alexnet_lab import distributed
from alexnet_lab.errors import UserError

NEEDED = {"13": ("R580", (7, 5)), "12": ("R525", (5, 0))}
"""NVIDIA's oldest driver and compute capability for torch's wheels, by the major version of their CUDA."""
SIGNS = ("/proc/driver/nvidia", "/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
"""What a machine with GPUs has: NVIDIA's driver, WSL2, AMD's driver."""
ANSWER_SECONDS = 120.0


@dataclass(frozen=True)
class Gpus:
    """What torch reports; `reason` is why CUDA cannot be used, empty where it can."""

    count: int
    reason: str
    capability: tuple[int, int] | None
    """The compute capability of this rank's GPU."""
    others: bool
    """Whether there is a GPU of another kind, as Apple's."""
    torch: str
    cuda: str | None
    """The version that torch was built with."""


def look() -> Gpus:
    """Ask torch in this process; each rank checks its own GPU."""
    import torch

    count = torch.cuda.device_count()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the error contains the reason, too
        usable = torch.cuda.is_available()
    reason, capability = "", None
    if usable:
        capability = torch.cuda.get_device_capability(min(distributed.local_rank(), count - 1))
    else:
        try:
            torch.cuda.init()
            reason = "torch does not say why"
        except (RuntimeError, AssertionError) as error:
            reason = _short(str(error))
    others = torch.backends.mps.is_available() or torch.xpu.is_available()
    return Gpus(count, reason, capability, others, torch.__version__, torch.version.cuda)


@cache
def ask() -> Gpus:
    """Ask torch in another process, which takes some seconds; the answer is kept.

    Raises:
        UserError: torch does not answer.
    """
    command = [sys.executable, "-m", "alexnet_lab.launch.gpus"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_SECONDS, check=True).stdout
        found = json.loads(answer.splitlines()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError) as error:
        reason = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1]
        raise UserError(f"torch does not report its GPUs: {reason}; trainer=cpu trains without one") from None
    return Gpus(**{**found, "capability": found["capability"] and tuple(found["capability"])})


def may_use(trainer: Mapping[str, Any]) -> bool:
    """Whether a run with this trainer requires a GPU, or uses one if there is one."""
    accelerator = trainer.get("accelerator")
    return accelerator in ("gpu", "cuda") or (accelerator == "auto" and _signs())


def check(accelerator: Any, gpus: Gpus, option: str = "trainer.accelerator", cpu: str = "trainer=cpu") -> None:
    """Check that this machine has the requested `accelerator`.

    `option` and `cpu` are the options for the message: the one that requested it, and the one that selects the CPU.

    Raises:
        UserError: torch cannot use the GPU, or a GPU is requested and there is none.
    """
    if accelerator not in ("gpu", "cuda", "auto"):
        return
    driver, oldest = NEEDED.get((gpus.cuda or "").partition(".")[0], ("", (0, 0)))
    needs = f" needs NVIDIA driver {driver} or newer and compute capability {oldest[0]}.{oldest[1]} or newer"
    remedy = f"torch {gpus.torch}{needs if driver else ''}; {cpu} uses the CPU"
    if gpus.count and gpus.reason:
        raise UserError(f"torch cannot use the GPU: {gpus.reason}; {remedy}")
    if gpus.count and gpus.capability and gpus.capability < oldest:
        has = f"the GPU has compute capability {gpus.capability[0]}.{gpus.capability[1]}"
        raise UserError(f"torch cannot use the GPU: {has}; {remedy}")
    if accelerator != "auto" and not gpus.count and not (gpus.others and accelerator == "gpu"):
        raise UserError(f"{option}={accelerator}: torch finds no GPU here: {gpus.reason}; {remedy}")


def _signs() -> bool:
    return any(Path(place).exists() for place in SIGNS) or shutil.which("nvidia-smi") is not None


def _short(text: str) -> str:
    """The part of torch's message with the reason, without memory addresses."""
    if found := re.search(r"Error \d+: .*", text):
        return found[0].strip()
    return text.strip().partition("\n")[0].partition(". ")[0].rstrip(".")


if __name__ == "__main__":
    print(json.dumps(asdict(look())))
