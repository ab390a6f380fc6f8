"""Jobs that run at the same time get cores and GPUs of their own."""

from typing import Any

import pytest

from alexnet_lab.errors import UserError
from alexnet_lab.launch import gpus
from alexnet_lab.launch.gpus import Gpus
from alexnet_lab.launch.slots import Slots, gpus_of, usable_gpus


@pytest.mark.parametrize(
    ("places", "shares"),
    [
        (1, [(0, 1, 2, 3, 4)]),
        (2, [(0, 1), (2, 3, 4)]),
        (5, [(0,), (1,), (2,), (3,), (4,)]),
        (6, [(0,), (1,), (2,), (3,), (4,), (0,)]),
    ],
)
def test_cores_are_shared_out_evenly(places: int, shares: list[tuple[int, ...]]) -> None:
    slots = Slots(places, range(5))
    taken = [slots.take(0) for _ in range(places)]
    assert [slot.cores for slot in taken if slot] == shares
    assert slots.take(0) is None


def test_gpus_are_taken_by_one_job_at_a_time() -> None:
    slots = Slots(3, range(4))
    slots.offer(["0", "1", "GPU-a"])
    first, second = slots.take(2), slots.take(1)
    assert first is not None
    assert second is not None
    assert (first.gpus, second.gpus) == (("0", "1"), ("GPU-a",))
    assert slots.take(1) is None
    slots.give_back(first)
    third = slots.take(1)
    assert third is not None
    assert third.gpus == ("0",)


@pytest.mark.parametrize(
    ("visible", "count", "names"),
    [
        (None, 2, ["0", "1"]),
        ("0,1", 2, ["0", "1"]),
        ("", 0, []),
        ("-1", 0, []),
        ("GPU-1a, GPU-2b", 2, ["GPU-1a", "GPU-2b"]),
        ("0,7", 1, ["0"]),
        ("0,1", 0, []),
    ],
)
def test_gpus_are_those_that_the_environment_allows_and_torch_sees(
    visible: str | None, count: int, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpus, "_signs", lambda: True)
    monkeypatch.setattr(gpus, "ask", lambda: Gpus(count, "" if count else "none", None, False, "2.14.1", "13.0"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert usable_gpus({"accelerator": "auto"}) == names


def test_torch_is_asked_only_where_a_gpu_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked() -> Gpus:
        raise AssertionError

    monkeypatch.setattr(gpus, "ask", asked)
    monkeypatch.setattr(gpus, "_signs", lambda: False)
    assert usable_gpus({"accelerator": "auto"}) == []
    assert usable_gpus({"accelerator": "cpu"}) == []
    with pytest.raises(AssertionError):
        usable_gpus({"accelerator": "gpu"})


@pytest.mark.parametrize(
    ("trainer", "per_job", "needed"),
    [
        ({"accelerator": "cpu", "devices": 2}, None, 0),
        ({"accelerator": "gpu", "devices": 2}, None, 2),
        ({"accelerator": "auto"}, None, 1),
        ({"accelerator": "gpu", "devices": "auto"}, None, 4),
        ({"accelerator": "gpu", "devices": -1}, 2, 2),
        ({"accelerator": "gpu", "devices": 1}, 3, 3),
    ],
)
def test_job_takes_as_many_gpus_as_its_trainer_asks_for(
    trainer: dict[str, Any], per_job: int | None, needed: int
) -> None:
    assert gpus_of(trainer, 4, per_job) == needed


@pytest.mark.parametrize(
    ("devices", "per_job", "message"),
    [
        (5, None, "a job needs 5 GPUs, and there are 4"),
        (2, 1, "trainer.devices=2 is more than hydra.launcher.devices_per_job=1"),
        ([0, 1], None, r"trainer.devices=\[0, 1\]: in a sweep the launcher chooses the GPUs"),
    ],
)
def test_gpus_that_cannot_be_had_are_refused(devices: Any, per_job: int | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        gpus_of({"accelerator": "gpu", "devices": devices}, 4, per_job)


def test_machine_without_gpus_gives_none() -> None:
    assert gpus_of({"accelerator": "auto", "devices": "auto"}, 0, None) == 0
