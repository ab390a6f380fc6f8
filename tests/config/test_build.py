"""Configuration nodes are checked against their targets: unknown, missing and wrong values are reported first."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from alexnet_lab.config.build import build, build_factory, check, check_origin
from alexnet_lab.config.schema import check_run_settings
from alexnet_lab.data.module import ImageDataModule
from alexnet_lab.errors import UserError

CONF = Path(__file__).parents[2] / "conf"
LENET = {
    "_target_": "alexnet_lab.models.lenet.lenet",
    "in_channels": 1,
    "num_classes": 10,
    "image_size": 28,
    "dropout": 0.0,
}
SGD = {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.1}


def without(settings: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name != key}


def test_node_is_built_into_the_object_it_describes() -> None:
    net = build(LENET | {"num_classes": 7}, "model")
    assert net(torch.zeros(2, 1, 28, 28)).shape == (2, 7)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (LENET | {"dropuot": 0.5}, r"model\.dropuot: .*lenet has no such option, did you mean dropout\?\noptions: "),
        (LENET | {"zzz": 0.5}, r"model\.zzz: .*lenet has no such option\noptions: in_channels, num_classes, "),
        (LENET | {"dropout": "abc"}, r"model\.dropout: 'abc' does not fit: Input should be a valid number"),
        (LENET | {"dropout": "0.5"}, r"model\.dropout: '0\.5' does not fit"),
        (LENET | {"image_size": 28.5}, r"model\.image_size: 28\.5 does not fit: Input should be a valid integer"),
        (LENET | {"image_size": True}, r"model\.image_size: True does not fit"),
        (LENET | {"dropout": None}, r"model\.dropout: None does not fit"),
        (LENET | {"dropout": 1.5}, r"^model\.dropout must be in \[0, 1\), got 1\.5$"),
        ({"_target_": "alexnet_lab.data.synthetic.synthetic"}, r"^model\.name is missing$"),
        (without(LENET, "_target_"), r"^model: _target_ is missing"),
        ("lenet", r"^model: _target_ is missing"),
        (LENET | {"_target_": "alexnet_lab.models.lenet.lenett"}, r"model\._target_: there is no alexnet_lab\S+lenett"),
        (LENET | {"_target_": "no.such.module"}, r"model\._target_: there is no no\.such\.module"),
    ],
)
def test_wrong_node_is_refused_with_its_path(settings: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(settings, "model")


def test_integer_is_accepted_as_a_learning_rate() -> None:
    build(LENET | {"dropout": 0}, "model")


def test_factory_takes_late_arguments_and_refuses_unknown_keys() -> None:
    factory = build_factory(SGD, "optimizer", ("params",), torch.optim.Optimizer)
    assert factory([torch.nn.Parameter(torch.zeros(1))]).param_groups[0]["lr"] == 0.1
    with pytest.raises(UserError, match=r"optimizer\.momentun: torch\.optim\.SGD has no such option, did you mean mom"):
        build_factory(SGD | {"momentun": 0.9}, "optimizer", ("params",), torch.optim.Optimizer)


STEP = {"_target_": "torch.optim.lr_scheduler.StepLR", "_partial_": True, "step_size": 1}
SCHEDULE = ("optimizer", "steps_per_epoch", "total_steps")


@pytest.mark.parametrize(
    ("settings", "late", "message"),
    [
        (SGD | {"_partial_": False}, ("params",), r"^optimizer\._partial_ must be true"),
        (without(SGD, "_partial_"), ("params",), r"^optimizer\._partial_ must be true"),
        # as positional arguments, the steps per epoch and per run would become the step size and the factor
        (STEP, SCHEDULE, r"StepLR does not take steps_per_epoch, total_steps, which the run itself passes$"),
        ({"_target_": "builtins.print", "_partial_": True}, ("params",), r"print does not take params"),
        (
            {"_target_": "torch.nn.ReLU", "_partial_": True},
            ("params",),
            r"^optimizer: torch\.nn\.ReLU does not take params",
        ),
    ],
)
def test_factory_without_the_late_arguments_is_refused(
    settings: dict[str, Any], late: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        build_factory(settings, "optimizer", late, object)


def test_error_of_a_factory_call_is_a_user_error() -> None:
    factory = build_factory(SGD | {"fused": True, "foreach": True}, "optimizer", ("params",), torch.optim.Optimizer)
    with pytest.raises(UserError, match=r"^optimizer: `fused` and `foreach` cannot be `True` together"):
        factory([torch.nn.Parameter(torch.zeros(1))])


CALLBACKS = "lightning.pytorch.callbacks"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("torch.nn.ReLU", r"^x: torch\.nn\.ReLU is not a subclass of Callback$"),
        ("os.getcwd", r"^x: os\.getcwd makes str, not Callback$"),
        ("subprocess.Popen", r"^x: subprocess\.Popen is not a subclass of Callback$"),
        ("builtins.dict", r"^x: builtins\.dict is not a subclass of Callback$"),
        (CALLBACKS, r"^x\._target_: lightning\.pytorch\.callbacks is not a class or a function$"),
        (f"{CALLBACKS}.EarlyStoping", r"^x\._target_: there is no \S+EarlyStoping, did you mean EarlyStopping\?$"),
        ("EarlyStopping", r"^x\._target_: there is no EarlyStopping \(.*\)$"),
        ("5", r"^x\._target_: there is no 5 \(.*\)$"),
        (None, r"^x: _target_ is missing"),
        (f"{CALLBACKS}.progress.rich_progress.RichProgressBarTheme", r"is not a subclass of Callback$"),
    ],
)
def test_target_of_another_kind_is_refused_in_one_line(
    target: str | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=message) as raised:
        build({"_target_": target}, "x", pl.Callback)
    assert len(str(raised.value).splitlines()) == 1
    assert capsys.readouterr().err == ""


def test_nested_node_must_have_the_expected_type() -> None:
    settings = {"_target_": "lightning.pytorch.Trainer", "profiler": {"_target_": "torch.nn.ReLU"}}
    with pytest.raises(UserError, match=r"^trainer\.profiler: torch\.nn\.ReLU is not a subclass of Profiler$"):
        check(settings, "trainer")
    check(settings | {"profiler": {"_target_": "lightning.pytorch.profilers.SimpleProfiler"}}, "trainer")


def test_network_too_large_for_memory_is_refused() -> None:
    with pytest.raises(UserError, match=r"^model: .*allocat"):
        build(LENET | {"image_size": 10**6}, "model")


def test_list_is_accepted_for_a_tuple() -> None:
    adamw = {"_target_": "torch.optim.AdamW", "_partial_": True, "betas": [0.9, 0.99]}
    check(adamw, "optimizer", late=("params",))
    with pytest.raises(UserError, match=r"optimizer\.betas"):
        check(adamw | {"betas": [0.9, "x"]}, "optimizer", late=("params",))


def test_nested_node_is_reported_with_its_own_path() -> None:
    outer = {"_target_": "lightning.pytorch.Trainer", "callbacks": LENET | {"dropuot": 1}}
    with pytest.raises(UserError, match=r"^trainer\.callbacks\.dropuot"):
        check(outer, "trainer")


def test_refusal_by_a_library_is_a_user_error_and_a_defect_is_not() -> None:
    with pytest.raises(UserError, match=r"^trainer: No supported gpu backend found"):
        build({"_target_": "lightning.pytorch.Trainer", "accelerator": "gpu"}, "trainer", logger=False)
    with pytest.raises(ZeroDivisionError):
        build({"_target_": "operator.truediv", "_args_": [1, 0], "_partial_": False}, "x")


def test_top_level_of_a_run_is_checked(settings: Callable[..., dict[str, Any]]) -> None:
    good = settings()
    check_run_settings(good)
    for change, message in (
        ({"sed": 1}, "there is no option 'sed', did you mean seed?"),
        ({"seed": -1}, "seed: -1 does not fit"),
        ({"seed": "abc"}, "seed: 'abc' does not fit"),
        ({"test_on": "first"}, "test_on: 'first' does not fit"),
        ({"checkpoints": {"keep": True, "every_minutes": 0.0}}, "checkpoints.every_minutes: 0.0 does not fit"),
        ({"checkpoints": {"keep": True, "every_minutes": 1.0, "top_k": 3}}, "checkpoints.top_k"),
        ({"optimizer": {"lr": float("nan")}}, "optimizer.lr: nan is not a finite number"),
        ({"data": {"mean": [0.0, float("inf")]}}, "data.mean: inf is not a finite number"),
        ({"trainer": {"check_val_every_n_epoch": 0}}, "trainer.check_val_every_n_epoch: 0 does not fit"),
        ({"trainer": {"barebones": True}}, "trainer.barebones: True does not fit: such a run records nothing"),
    ):
        with pytest.raises(UserError) as raised:
            check_run_settings(good | change)
        assert message in str(raised.value)
    with pytest.raises(UserError, match=r"^scheduler is missing$"):
        check_run_settings(without(good, "scheduler"))


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "alexnet_labyrinth.run",
        "torch.load",
        "alexnet_lab",
        "torch.optim.SGD",
        "lightning.fabric.plugins.io.torch_io.TorchCheckpointIO.load_checkpoint",
        "alexnet_lab.models.table.torch.load",
        "alexnet_lab.launch.ranks.run_ranks",
        "alexnet_lab.data.synthetic.synthetic",
    ],
)
def test_checkpoint_may_name_only_factories_of_the_package(target: str) -> None:
    hidden = {**LENET, "further": [{"_target_": target}]}
    with pytest.raises(UserError, match=rf"model\.further\[0\]: a checkpoint may not name {target}"):
        check_origin(hidden, "model", "models", nn.Module)


@pytest.mark.parametrize(
    "target",
    [
        "alexnet_lab.data.stream.writing.write_stream",
        "alexnet_lab.data.store.prepare.prepare",
        "alexnet_lab.data.fashion_mnist_files.prepare",
        "alexnet_lab.data.spec.DataSpec",
    ],
)
def test_checkpoint_may_not_name_functions_that_write_files(target: str) -> None:
    settings = {"_target_": "alexnet_lab.data.synthetic.synthetic", "name": {"_target_": target}}
    for hidden, path in ((settings["name"], "data"), (settings, r"data\.name")):
        with pytest.raises(UserError, match=rf"^{path}: a checkpoint may not name {target}"):
            check_origin(hidden, "data", "data", ImageDataModule)


MY_LAB = """
import os
import shutil
from functools import partial, wraps
from shutil import rmtree
import torch
from torch import nn
from alexnet_lab.data.module import ImageDataModule
from alexnet_lab.data.stream.writing import write_stream
from alexnet_lab.models.lenet import lenet

class Net(nn.Module):
    pass

class Images:
    pass

def network() -> nn.Module: ...
def dataset() -> "ImageDataModule": ...
def unannotated(): ...
def text() -> str: ...
def described() -> "a network": ...
@wraps(write_stream)
def wrapped(*_): ...
delete = partial(rmtree, "x")
"""
MODEL = ("models", nn.Module)
DATA = ("data", ImageDataModule)


@pytest.mark.parametrize(
    ("of", "allowed"),
    [(MODEL, {"Net", "Images", "network", "lenet"}), (DATA, {"Net", "Images", "dataset", "ImageDataModule"})],
)
def test_module_of_the_user_allows_what_it_defines_and_not_what_it_imports(
    of: tuple[str, type], allowed: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_own_lab.py").write_text(MY_LAB)
    monkeypatch.syspath_prepend(tmp_path)
    reached = {"os.system", "shutil.rmtree", "torch.load", "nn.Linear", "Net.load_state_dict", "Net.__init__"}
    mine = {"network", "dataset", "unannotated", "text", "described", "wrapped", "delete", "Net", "Images"}
    for name in reached | mine | {"rmtree", "write_stream", "lenet", "ImageDataModule"}:
        node = {"_target_": f"my_own_lab.{name}"}
        if name in allowed:
            check_origin(node, "x", *of, modules=["my_own_lab"])
            with pytest.raises(UserError, match=r"may not name my_own_lab\.\w+; modules=NAME allows"):
                check_origin(node, "x", *of)
        else:
            with pytest.raises(
                UserError, match=rf"^x: a checkpoint may not name my_own_lab\.{name}; modules=NAME allows"
            ):
                check_origin(node, "x", *of, modules=["my_own_lab"])


@pytest.mark.parametrize("arguments", [[1, 10], {"a": 1}, 5, None])
def test_positional_arguments_of_our_factories_are_refused(arguments: Any) -> None:
    with pytest.raises(UserError, match=r"^model\._args_: alexnet_lab\.models\.lenet\.lenet takes options by name$"):
        build(LENET | {"_args_": arguments}, "model")


@pytest.mark.parametrize(
    "change", [{"_partial_": "yes"}, {"_recursive_": 5}, {"_args_": 5}, {"_args_": {"a": 1}}, {5: 1}]
)
def test_wrong_key_of_hydra_is_refused_with_its_path(change: dict[Any, Any]) -> None:
    (key,) = change
    with pytest.raises(UserError, match=rf"^x\.{key}: (.+ does not fit|torch\.nn\.Linear has no such option)"):
        build({"_target_": "torch.nn.Linear", "in_features": 1, "out_features": 1} | change, "x")


def test_configuration_of_a_run_may_come_from_a_checkpoint(settings: Callable[..., dict[str, Any]]) -> None:
    for model in (CONF / "model").glob("*.yaml"):
        check_origin(settings(f"model={model.stem}")["model"], "model", "models", nn.Module)
    for data in (CONF / "data").glob("*.yaml"):
        check_origin(settings(f"data={data.stem}", "data.num_classes=2")["data"], "data", "data", ImageDataModule)
