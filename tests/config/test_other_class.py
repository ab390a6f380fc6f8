"""`optimizer._target_=CLASS` takes the options of the chosen file that the class has."""

from pathlib import Path
from typing import Any

import pytest

from alexnet_lab.config.other_class import what_is_left_out, with_own_options
from alexnet_lab.runs.folders import read_config
from alexnet_lab.runs.result_file import read_result

SGD = {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}
SGD |= {"nesterov": False, "fused": None}


def fitting(target: str, *overrides: str, **more: Any) -> dict[str, Any]:
    settings = {"optimizer": {**SGD, "_target_": target, **more}, "seed": 0}
    return with_own_options(settings, [f"optimizer._target_={target}", *overrides])["optimizer"]


def test_options_of_the_file_that_the_class_does_not_have_are_left_out() -> None:
    kept = fitting("torch.optim.Adagrad", "+optimizer.lr_decay=0.1", lr_decay=0.1)
    assert [*kept] == ["_target_", "_partial_", "lr", "weight_decay", "fused", "lr_decay"]
    line = what_is_left_out({"optimizer": SGD}, {"optimizer": kept})
    assert line == (
        "options of optimizer=torch.optim.Adagrad: optimizer.lr=0.01 optimizer.weight_decay=0.0005 "
        "optimizer.fused=None optimizer.lr_decay=0.1; not its options, left out: momentum, nesterov"
    )


def test_options_on_the_command_line_are_kept_and_so_reported() -> None:
    assert "momentum" in fitting("torch.optim.NAdam", "optimizer.momentum=0.5")


@pytest.mark.parametrize("target", ["torch.optim.SGD", "torch.optim.Adagard", "os"])
def test_class_with_all_options_or_without_known_ones_keeps_them(target: str, caplog: pytest.LogCaptureFixture) -> None:
    assert fitting(target) == SGD | {"_target_": target}
    assert not caplog.messages  # such as Hydra's about a class that does not exist


def test_file_alone_keeps_all_its_options() -> None:
    settings = {"optimizer": {**SGD, "_target_": "torch.optim.NAdam"}}
    assert with_own_options(settings, ["optimizer=mine", "optimizer.lr=1"]) is settings


def test_run_records_the_options_of_its_class_and_continues_with_them(script: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    small = ("model=lenet", "data=synthetic", "data.train_size=32", "data.val_size=8", "trainer=cpu", "test_on=none")
    quiet = ("logger=none", "callbacks.pictures=null", f"hydra.run.dir={folder}")
    kind = ("optimizer._target_=torch.optim.NAdam", "+optimizer.momentum_decay=0.01", "trainer.max_epochs=1")
    ended = script.run(*small, *quiet, *kind)
    assert ended.returncode == 0, ended.stderr
    assert "not its options, left out: momentum, nesterov, fused" in ended.stdout
    expected = {"_target_": "torch.optim.NAdam", "_partial_": True, "lr": 0.01, "weight_decay": 0.0005}
    expected |= {"momentum_decay": 0.01}
    assert read_config(folder)["optimizer"] == expected
    continued = script.run(f"resume={folder}", "trainer.max_epochs=2")
    assert continued.returncode == 0, continued.stderr
    assert read_config(folder)["optimizer"] == expected
    assert read_result(folder / "result.json")["final"]["train/loss"] > 0  # type: ignore[index]
