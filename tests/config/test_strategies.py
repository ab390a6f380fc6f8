"""Only those strategies of lightning are accepted whose ranks are processes started beforehand."""

from typing import Any

import pytest
from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry

from alexnet_lab.config.schema import check_trainer
from alexnet_lab.errors import UserError

DDP = "lightning.pytorch.strategies.DDPStrategy"
FITTING = ["ddp", "ddp_find_unused_parameters_false", "ddp_find_unused_parameters_true", "single_device"]


class OwnStrategy(DDPStrategy):
    """A user's strategy."""


@pytest.mark.parametrize(
    "strategy",
    [
        "auto",
        *FITTING,
        {"_target_": DDP, "find_unused_parameters": True, "bucket_cap_mb": 25, "process_group_backend": "gloo"},
        {"_target_": DDP, "process_group_backend": None},
        {"_target_": "lightning.pytorch.strategies.SingleDeviceStrategy"},
        {"_target_": "alexnet_lab.models.two_towers.TwoTowers"},
        {"_target_": f"{OwnStrategy.__module__}.OwnStrategy"},
    ],
)
def test_strategy_is_accepted(strategy: Any) -> None:
    check_trainer({"strategy": strategy})


@pytest.mark.parametrize(
    "strategy",
    [
        *(name for name in StrategyRegistry.available_strategies() if name not in FITTING),
        *("dp", "fsdp2", "model_parallel", "", 5, None, ["ddp"]),
        {"_target_": DDP, "start_method": "spawn"},
        {"_target_": "lightning.pytorch.strategies.FSDPStrategy"},
        {"_target_": "lightning.pytorch.strategies.DeepSpeedStrategy"},
        {"_target_": "lightning.pytorch.strategies.ModelParallelStrategy"},
        {"_target_": "torch.nn.ReLU"},
    ],
    ids=str,
)
def test_unsupported_strategy_is_refused_with_an_alternative(strategy: Any) -> None:
    with pytest.raises(UserError) as raised:
        check_trainer({"strategy": strategy})
    (line,) = str(raised.value).splitlines()
    assert line.startswith(
        f"trainer.strategy: {strategy!r} does not fit: choose auto, {', '.join(FITTING)}; trainer=ddp"
    )
    assert "trainer=ddp_cpu" in line


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"process_group_backend": "nope"}, "process_group_backend=nope: choose gloo"),
        ({"process_group_backend": "cpu:gloo,cuda:nope"}, "process_group_backend=cuda:nope: choose gloo"),
        ({"process_group_backend": "nccl"}, "process_group_backend=nccl: needs a GPU; choose gloo"),
        ({"static_graf": True}, "there is no option 'static_graf', did you mean static_graph?"),
        ({"device_ids": [0]}, "there is no option 'device_ids'"),
        ({"static_graph": "yes"}, "static_graph must be true or false"),
        ({"bucket_cap_mb": "x"}, "bucket_cap_mb cannot be text"),
    ],
)
def test_option_that_lightning_passes_to_torch_is_checked(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match="does not fit: ") as raised:
        check_trainer({"accelerator": "cpu", "strategy": {"_target_": DDP, **options}})
    assert str(raised.value).partition("does not fit: ")[2].startswith(reason)


def test_strategy_with_options_needs_its_class() -> None:
    with pytest.raises(UserError, match="does not fit: a strategy with options needs its class") as raised:
        check_trainer({"strategy": {"process_group_backend": "nope"}})
    assert len(str(raised.value).splitlines()) == 1


def test_missing_device_of_a_strategy_is_refused() -> None:
    strategy = {"_target_": "lightning.pytorch.strategies.SingleDeviceStrategy", "device": "cuda:0"}
    with pytest.raises(UserError, match="does not fit: device=cuda:0 needs a GPU; omit device"):
        check_trainer({"accelerator": "cpu", "strategy": strategy})
