"""How many processes the trainer asks for, and who has started them."""

from typing import Any

import pytest

from alexnet_lab.errors import UserError
from alexnet_lab.launch import gpus, slurm
from alexnet_lab.launch.planning import started_from_outside
from alexnet_lab.launch.running import local_ranks


@pytest.mark.parametrize(
    ("devices", "ranks"),
    [(1, 1), (3, 3), ("2", 2), ([0, 1, 5], 3), ("0,1", 2), ("1,", 1), ("auto", 1), (-1, 1), ("-1", 1)],
)
def test_number_of_processes_on_the_cpu(devices: Any, ranks: int) -> None:
    assert local_ranks({"accelerator": "cpu", "devices": devices}) == ranks


@pytest.mark.parametrize("count", [0, 1, 4])
def test_every_visible_device_gets_a_process_and_without_any_the_cpu_gets_one(
    count: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(gpus, "_signs", lambda: True)
    monkeypatch.setattr(gpus, "ask", lambda: gpus.Gpus(count, "" if count else "none", None, False, "2.14", "13.0"))
    assert local_ranks({"accelerator": "auto", "devices": "auto"}) == max(1, count)
    line = "trainer.devices=auto: there is no GPU here, so one process trains on the CPU\n"
    assert capsys.readouterr().err == ("" if count else line)


@pytest.mark.parametrize("devices", [0, -2, "abc", "", "1.5", 1.5, True, None, {}, [], ["x"], [-1], "0,x", "²"])
def test_wrong_number_of_devices_is_refused(devices: Any) -> None:
    with pytest.raises(UserError, match=r"^trainer\.devices=.*: a number of devices, a list of"):
        local_ranks({"accelerator": "cpu", "devices": devices})


@pytest.mark.parametrize("nodes", [0, -1, 1.5, True, None, "x", [1]])
def test_wrong_number_of_nodes_is_refused(nodes: Any) -> None:
    with pytest.raises(UserError, match=r"^trainer\.num_nodes=.*: a whole number of at least 1"):
        local_ranks({"accelerator": "cpu", "devices": 1, "num_nodes": nodes})


def test_ranks_of_torchrun_and_srun_are_not_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TORCHELASTIC_RUN_ID", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    for tasks, started in ((None, False), ("1", False), ("2", True)):
        if tasks:
            monkeypatch.setenv("SLURM_STEP_NUM_TASKS", tasks)
        slurm.here.cache_clear()
        assert started_from_outside() == started
    monkeypatch.delenv("SLURM_STEP_NUM_TASKS")
    slurm.here.cache_clear()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert started_from_outside()
