"""Which optimizers are fused, and that a fused one logs, clips, and continues as any other."""

import inspect
from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from alexnet_lab.config.build import build_factory
from alexnet_lab.config.layer_patterns import Factors
from alexnet_lab.config.optimizer import optimizer_factory, with_fused_kernel
from alexnet_lab.config.trial import try_step
from alexnet_lab.errors import UserError
from alexnet_lab.optim.plateau import Plateau2012
from alexnet_lab.optim.schedules import LR_FACTOR

SGD = {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.1, "momentum": 0.9}
ADAMW = {"_target_": "torch.optim.AdamW", "_partial_": True, "lr": 0.01}
OURS = {"_target_": "alexnet_lab.optim.sgd_2012.sgd_2012", "_partial_": True, "lr": 0.1}


@pytest.mark.parametrize(
    ("settings", "is_fused"),
    [
        (SGD, True),
        (SGD | {"fused": None}, True),
        (SGD | {"_target_": "torch.optim.sgd.SGD", "fused": None}, True),
        (ADAMW | {"fused": None}, True),
        (ADAMW | {"_target_": "torch.optim.Adam"}, True),
        (SGD | {"fused": False}, False),
        (SGD | {"fused": None, "foreach": True}, None),
        (SGD | {"fused": None, "foreach": False}, None),
        (SGD | {"fused": None, "differentiable": True}, None),
        (SGD | {"_target_": "torch.optim.Adagrad", "fused": None}, None),
        (SGD | {"_target_": "mine.SGD", "fused": None}, None),
        (OURS, None),
        ({}, None),
    ],
)
def test_fused_is_the_default_on_a_gpu_where_the_class_has_it_and_nothing_else_is_chosen(
    settings: dict[str, Any], is_fused: bool | None
) -> None:
    assert with_fused_kernel(settings, on_gpu=True).get("fused") is is_fused
    assert with_fused_kernel(settings, on_gpu=False) == settings


def parameters(seed: int = 0, layout: torch.memory_format = torch.channels_last) -> list[tuple[str, nn.Parameter]]:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(1, 4, 2)).to(memory_format=layout)
    return [*net.named_parameters()]


def stepped(optimizer: Optimizer, steps: int = 2) -> Optimizer:
    for step in range(steps):
        for group in optimizer.param_groups:
            for number, parameter in enumerate(group["params"]):
                values = torch.arange(parameter.numel(), dtype=torch.float32).view(parameter.shape)
                parameter.grad = torch.empty_like(parameter).copy_(values.sin() * (1 + step + number))
        optimizer.step()
    return optimizer


def of(settings: dict[str, Any], *, fused: bool, **more: Any) -> tuple[Optimizer, list[nn.Parameter]]:
    named = parameters(**more)
    return optimizer_factory(settings | {"fused": fused or None}, on_gpu=False)(named), [value for _, value in named]


@pytest.mark.parametrize("settings", [SGD, ADAMW], ids=["sgd", "adamw"])
@pytest.mark.parametrize("from_fused", [True, False])
def test_checkpoint_of_another_device_changes_no_kernel_and_continues_alike(
    settings: dict[str, Any], from_fused: bool
) -> None:
    saved, _ = of(settings, fused=from_fused)
    state = stepped(saved).state_dict()
    continued, values = of(settings, fused=not from_fused, seed=1)
    same, expected = of(settings, fused=from_fused, seed=1)
    continued.load_state_dict(deepcopy(state))
    same.load_state_dict(deepcopy(state))
    assert [group["fused"] for group in continued.param_groups] == [not from_fused or None]
    assert [group["fused"] for group in same.param_groups] == [from_fused or None]
    assert state["param_groups"][0]["fused"] is (from_fused or None), "the checkpoint itself is not changed"
    stepped(continued)
    stepped(same)
    for value, other in zip(values, expected, strict=True):
        torch.testing.assert_close(value, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("settings", [SGD, ADAMW], ids=["sgd", "adamw"])
def test_fused_kernel_continues_from_a_state_in_another_memory_format(settings: dict[str, Any]) -> None:
    """As from `trainer=two_towers`: a fused kernel on a CPU would match the wrong elements, one on a GPU refuses."""
    saved, _ = of(settings, fused=False, layout=torch.contiguous_format)
    state = stepped(saved).state_dict()
    fused, values = of(settings, fused=True, seed=1)
    plain, expected = of(settings, fused=False, seed=1)
    for optimizer in (fused, plain):
        optimizer.load_state_dict(deepcopy(state))
        stepped(optimizer)
    for value, other in zip(values, expected, strict=True):
        torch.testing.assert_close(value, other, rtol=1e-5, atol=1e-7)


def test_state_of_another_number_of_groups_is_reported_by_torch() -> None:
    optimizer, _ = of(SGD, fused=False)
    state = optimizer.state_dict()
    state["param_groups"] *= 2
    with pytest.raises(ValueError, match="different number of parameter groups"):
        optimizer.load_state_dict(state)


class Scaled(pl.LightningModule):
    """One weight whose gradient has the norm 6, before clipping."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))
        self.settings = settings
        self.norms: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return (3 * self.weight).sum()

    def configure_optimizers(self) -> Optimizer:
        return optimizer_factory(self.settings, on_gpu=True)([("weight", self.weight)])

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        self.norms.append(float(nn.utils.get_total_norm([self.weight.grad])))

    def configure_gradient_clipping(self, optimizer: Optimizer, **limits: Any) -> None:
        self.clip_gradients(optimizer, **limits)
        self.norms.append(float(nn.utils.get_total_norm([self.weight.grad])))


@pytest.mark.parametrize("settings", [SGD, ADAMW], ids=["sgd", "adamw"])
@pytest.mark.parametrize("fused", [None, True, False])
def test_gradients_scaled_for_float16_are_unscaled_before_they_are_logged_and_clipped(
    settings: dict[str, Any], fused: bool | None, tmp_path: Path
) -> None:
    """`trainer.precision=16-mixed` on a GPU, whose scaler also works on a CPU."""
    precision = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=1024.0))
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(
        accelerator="cpu", plugins=[precision], max_steps=1, gradient_clip_val=0.5, default_root_dir=tmp_path, **quiet
    )
    net = Scaled(settings | {"fused": fused})
    trainer.fit(net, torch.utils.data.DataLoader([0]))
    assert net.norms == pytest.approx([6.0, 0.5], rel=1e-5)
    assert net.weight.max() < 1


NOT_HERE = {"LBFGS": "several times per step", "Muon": "only supports 2D parameters", "SparseAdam": "dense gradients"}
CLASSES = sorted(
    name
    for name, kind in vars(torch.optim).items()
    if inspect.isclass(kind) and issubclass(kind, Optimizer) and kind is not Optimizer
)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(12, 3))


def trained(net: nn.Module, optimizer: Optimizer, steps: Iterable[int]) -> None:
    for step in steps:
        optimizer.zero_grad()
        images = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(step))
        net(images).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("name", CLASSES)
def test_any_optimizer_of_torch_continues_to_the_bit_or_is_refused_in_a_line(name: str, tmp_path: Path) -> None:
    target = f"torch.optim.{name}"
    factory = optimizer_factory({"_target_": target, "_partial_": True, "lr": 0.01}, on_gpu=False)
    whole, first, second = network(), network(), network()

    def made(net: nn.Module) -> Optimizer:
        try_step(factory, target, torch.device("cpu"))
        return factory(net.named_parameters())

    if name in NOT_HERE:
        with pytest.raises(UserError, match=NOT_HERE[name]):
            made(whole)
        return
    trained(whole, made(whole), range(6))
    optimizer = made(first)
    trained(first, optimizer, range(3))
    torch.save([first.state_dict(), optimizer.state_dict()], tmp_path / "state")
    weights, state = torch.load(tmp_path / "state", weights_only=True)
    optimizer = made(second)
    second.load_state_dict(weights)
    optimizer.load_state_dict(state)
    trained(second, optimizer, range(3, 6))
    assert all(map(torch.equal, whole.parameters(), second.parameters()))
    assert not torch.equal(next(first.parameters()), next(second.parameters()))


PAPER, SOURCE, CAFFE = (OURS | {"convention": name, "weight_decay": 0.5} for name in ("paper", "source", "caffe"))
OPTIMIZERS = {"sgd": SGD | {"weight_decay": 0.5}, "adamw": ADAMW, "paper": PAPER, "source": SOURCE, "caffe": CAFFE}
SCHEDULES = {
    "constant": {},
    "step": {"epochs": 1},
    "cosine": {"warmup_epochs": 0.5},
    "one_cycle": {},
    "plateau": {"patience": 1},
}
LAYERS = {"0.weight": Factors(10.0, 0.0), "0.bias": Factors(0.0, 2.0), "1.weight": Factors(0.5, 3.0)}


def rates_by_name(optimizer: Optimizer, named: list[tuple[str, nn.Parameter]]) -> dict[str, tuple[float, float]]:
    groups = {parameter: group for group in optimizer.param_groups for parameter in group["params"]}
    return {name: (groups[value]["lr"], groups[value]["weight_decay"]) for name, value in named}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_factors_of_layers_hold_under_every_schedule_and_convention(name: str, schedule: str) -> None:
    named = parameters()
    plain = optimizer_factory(OPTIMIZERS[name], on_gpu=False)(named)
    scaled = optimizer_factory(OPTIMIZERS[name], on_gpu=False, factors=LAYERS)(named)
    target = "plateau.plateau_2012" if schedule == "plateau" else f"schedules.{schedule}"
    settings = {"_target_": f"alexnet_lab.optim.{target}", "_partial_": True, **SCHEDULES[schedule]}
    make = build_factory(settings, "scheduler", ("optimizer", "steps_per_epoch", "total_steps"), LRScheduler)
    schedules = [make(optimizer, 4, 12) for optimizer in (plain, scaled)]
    seen = set()
    for step in range(12):
        expected, found = rates_by_name(plain, named), rates_by_name(scaled, named)
        seen.add(expected["1.weight"][0])
        for key, (rate, decay) in expected.items():
            factors = LAYERS.get(key, Factors())
            assert found[key] == pytest.approx((rate * factors.lr, decay * factors.weight_decay), rel=1e-12)
        for optimizer, one in zip((plain, scaled), schedules, strict=True):
            optimizer.step()
            one.step()
            if isinstance(one, Plateau2012) and step % 4 == 3:
                one.validated(0.5)
    assert (len(seen) > 1) == (schedule != "constant")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_factors_of_one_change_nothing_and_all_groups_are_saved(name: str) -> None:
    one, other = parameters(), parameters()
    settings = OPTIMIZERS[name]
    stepped(optimizer_factory(settings, on_gpu=False)(one))
    optimizer = stepped(optimizer_factory(settings, on_gpu=False, factors={"0.bias": Factors()})(other))
    assert all(torch.equal(mine, theirs) for (_, mine), (_, theirs) in zip(one, other, strict=True))
    continued = optimizer_factory(settings, on_gpu=False, factors={"0.bias": Factors()})(parameters())
    continued.load_state_dict(deepcopy(optimizer.state_dict()))
    assert str(continued.state_dict()) == str(optimizer.state_dict())


def test_frozen_parameters_are_not_in_the_optimizer() -> None:
    named = parameters()
    named[0][1].requires_grad_(False)
    optimizer = optimizer_factory(SGD, on_gpu=True, factors={"1.bias": Factors(lr=3.0)})(named)
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert len(held) == 3
    assert all(parameter is not named[0][1] for parameter in held)
    assert all(group["fused"] and len(group["params"]) == len(group["param_names"]) for group in optimizer.param_groups)
    assert [group[LR_FACTOR] for group in optimizer.param_groups] == [1.0, 3.0]


def test_optimizer_without_a_decay_refuses_a_factor_of_it() -> None:
    rprop = {"_target_": "torch.optim.Rprop", "_partial_": True}
    with pytest.raises(UserError, match="layers: this optimizer has no weight_decay"):
        optimizer_factory(rprop, on_gpu=False, factors={"0.bias": Factors(1.0, 0.0)})(parameters())
