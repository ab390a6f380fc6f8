"""Configuration nodes against their targets: unknown, missing and wrong values are told before anything is made."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from alexnet_lab.commands.build import build, check, check_origin, check_run_settings
from alexnet_lab.errors import UserError

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


def test_node_becomes_the_object_it_describes() -> None:
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
        (LENET | {"dropout": 1.5}, r"^model\.dropout must lie in \[0, 1\), got 1\.5$"),
        ({"_target_": "alexnet_lab.data.synthetic.synthetic"}, r"^model\.name is missing$"),
        (without(LENET, "_target_"), r"^model: there is no _target_"),
        ("lenet", r"^model: there is no _target_"),
        (LENET | {"_target_": "alexnet_lab.models.lenet.lenett"}, r"model\._target_: there is no alexnet_lab\S+lenett"),
        (LENET | {"_target_": "no.such.module"}, r"model\._target_: there is no no\.such\.module"),
    ],
)
def test_wrong_node_is_refused_with_its_path(settings: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(settings, "model")


def test_whole_number_is_a_rate_too() -> None:
    build(LENET | {"dropout": 0}, "model")


def test_partial_may_leave_out_what_it_is_given_late_but_no_key_may_be_unknown() -> None:
    factory: Callable[..., torch.optim.Optimizer] = build(SGD, "optimizer", late=("params",))
    assert factory([torch.nn.Parameter(torch.zeros(1))]).param_groups[0]["lr"] == 0.1
    with pytest.raises(UserError, match=r"optimizer\.momentun: torch\.optim\.SGD has no such option, did you mean mom"):
        build(SGD | {"momentun": 0.9}, "optimizer", late=("params",))


def test_list_is_right_where_a_tuple_is_wanted() -> None:
    adamw = {"_target_": "torch.optim.AdamW", "_partial_": True, "betas": [0.9, 0.99]}
    check(adamw, "optimizer", late=("params",))
    with pytest.raises(UserError, match=r"optimizer\.betas"):
        check(adamw | {"betas": [0.9, "x"]}, "optimizer", late=("params",))


def test_node_within_a_node_is_checked_under_its_own_path() -> None:
    outer = {"_target_": "lightning.pytorch.Trainer", "callbacks": LENET | {"dropuot": 1}}
    with pytest.raises(UserError, match=r"^trainer\.callbacks\.dropuot"):
        check(outer, "trainer")


def test_librarys_refusal_is_told_as_the_users_error_and_a_defect_is_not() -> None:
    with pytest.raises(UserError, match=r"^trainer: No supported gpu backend found"):
        build({"_target_": "lightning.pytorch.Trainer", "accelerator": "gpu"}, "trainer", logger=False)
    with pytest.raises(ZeroDivisionError):
        build({"_target_": "operator.truediv", "_args_": [1, 0]}, "x", late=("a", "b"))


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
    ):
        with pytest.raises(UserError) as raised:
            check_run_settings(good | change)
        assert message in str(raised.value)


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
        "alexnet_lab.commands.supervisor.supervise",
        "alexnet_lab.data.synthetic.synthetic",
    ],
)
def test_checkpoint_may_name_factories_of_the_package_alone(target: str) -> None:
    hidden = {**LENET, "further": [{"_target_": target}]}
    with pytest.raises(UserError, match=rf"model\.further\[0\]: a checkpoint may not name {target}"):
        check_origin(hidden, "model", "models")


def test_configuration_of_a_run_may_come_from_a_checkpoint(settings: Callable[..., dict[str, Any]]) -> None:
    check_origin(settings()["model"], "model", "models")
    check_origin(settings()["data"], "data", "data")
