"""Divides the cores and GPUs of this machine among jobs."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alexnet_lab.errors import UserError
from alexnet_lab.launch import gpus


@dataclass(frozen=True)
class Slot:
    """The share of one running job: its place, its cores, and its GPUs as CUDA_VISIBLE_DEVICES names them."""

    place: int
    cores: tuple[int, ...]
    gpus: tuple[str, ...]


class Slots:
    """`jobs_at_once` places with an equal share of `cores` each, and GPUs for the jobs that request them."""

    def __init__(self, jobs_at_once: int, cores: Sequence[int]) -> None:
        self.gpus: tuple[str, ...] = ()
        self._cores = [_share(cores, place, jobs_at_once) for place in range(jobs_at_once)]
        self._places = list(range(jobs_at_once))
        self._free_gpus: list[str] = []

    def offer(self, gpus: Sequence[str]) -> None:
        """Set the GPUs that jobs may use, unless they are set."""
        if not self.gpus:
            self.gpus, self._free_gpus = tuple(gpus), list(gpus)

    def take(self, gpus: int) -> Slot | None:
        """A free place with this number of GPUs; None if there is none."""
        if not self._places or len(self._free_gpus) < gpus:
            return None
        place = self._places.pop(0)
        taken, self._free_gpus = self._free_gpus[:gpus], self._free_gpus[gpus:]
        return Slot(place, self._cores[place], tuple(taken))

    def give_back(self, slot: Slot) -> None:
        """Return the slot of a job that has ended."""
        self._places = sorted([*self._places, slot.place])
        self._free_gpus = sorted([*self._free_gpus, *slot.gpus], key=self.gpus.index)


def _share(cores: Sequence[int], place: int, places: int) -> tuple[int, ...]:
    """Neighbouring cores, divided evenly: numbers differ by at most one. More places than cores share them."""
    if places >= len(cores):
        return (cores[place % len(cores)],)
    return tuple(cores[place * len(cores) // places : (place + 1) * len(cores) // places])


def usable_gpus(trainer: Mapping[str, Any]) -> list[str]:
    """The GPUs that a job with this `trainer` may use, as CUDA_VISIBLE_DEVICES names them.

    Raises:
        UserError: torch cannot use them, or the trainer requires one and there is none.
    """
    if not gpus.may_use(trainer):
        return []
    found = gpus.ask()
    gpus.check(trainer.get("accelerator"), found)
    names = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return (names or [str(number) for number in range(found.count)])[: found.count]


def gpus_of(trainer: Mapping[str, Any], available: int, per_job: int | None) -> int:
    """How many of the `available` GPUs a job with this `trainer` needs; `per_job` is the sweep's setting.

    Raises:
        UserError: more than there are, or specific devices, which a sweep chooses itself.
    """
    accelerator, devices = trainer.get("accelerator"), trainer.get("devices", 1)
    if accelerator not in ("gpu", "cuda", "auto") or not available:
        return 0
    if isinstance(devices, list) or (isinstance(devices, str) and "," in devices):
        raise UserError(f"trainer.devices={devices}: in a sweep the launcher chooses the GPUs; give their number")
    all_visible = devices in ("auto", -1, "-1")
    wanted = per_job or (available if all_visible else int(devices))
    if wanted > available:
        raise UserError(f"a job needs {wanted} GPUs, and there are {available}")
    if not all_visible and int(devices) > wanted:
        raise UserError(f"trainer.devices={devices} is more than hydra.launcher.devices_per_job={per_job}")
    return wanted
