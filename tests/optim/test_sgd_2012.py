"""The 2012 rule compared with the paper's rule in NumPy, and with torch's SGD where both agree."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from alexnet_lab.errors import UserError
from alexnet_lab.optim.schedules import constant, cosine, one_cycle, step
from alexnet_lab.optim.sgd_2012 import sgd_2012

STEPS, DROP = 30, 15
RATES = [0.1] * DROP + [0.01] * (STEPS - DROP)


def gradients() -> list[np.ndarray]:
    noise = np.random.default_rng(0)
    return [noise.normal(size=(3, 5)) for _ in range(STEPS)]


def start() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(3, 5))


def paper(rates: list[float]) -> Iterator[np.ndarray]:
    """The weights after each step, by the rule of section 5."""
    w, v = start(), np.zeros((3, 5))
    for eps, g in zip(rates, gradients(), strict=True):
        v = 0.9 * v - 0.0005 * eps * w - eps * g
        w = w + v
        yield w


def trajectory(
    make: Callable[[nn.Parameter], Optimizer],
    rates: list[float],
    before: Callable[[Optimizer, float], None] = lambda optimizer, rate: None,
) -> Iterator[np.ndarray]:
    """The weights after each step of an optimizer; `before` is called with it before the learning rate changes."""
    w = nn.Parameter(torch.from_numpy(start()))
    optimizer = make(w)
    for rate, g in zip(rates, gradients(), strict=True):
        if rate != optimizer.param_groups[0]["lr"]:
            before(optimizer, rate)
        optimizer.param_groups[0]["lr"] = rate
        w.grad = torch.from_numpy(g.copy())
        optimizer.step()
        yield w.detach().numpy().copy()


def ours(w: nn.Parameter) -> Optimizer:
    return sgd_2012([("conv1.weight", w)], lr=0.1, momentum=0.9, weight_decay=0.0005)


def without_momentum(w: nn.Parameter) -> Optimizer:
    return sgd_2012([("conv1.weight", w)], lr=0.1, momentum=0.0, weight_decay=0.0005)


def torchs(w: nn.Parameter) -> Optimizer:
    return torch.optim.SGD([w], lr=0.1, momentum=0.9, weight_decay=0.0005)


def scale_buffers(optimizer: Optimizer, rate: float) -> None:
    for state in optimizer.state.values():
        state["momentum_buffer"] *= optimizer.param_groups[0]["lr"] / rate


def test_steps_across_a_learning_rate_drop_match_the_papers_rule() -> None:
    for found, expected in zip(trajectory(ours, RATES), paper(RATES), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


def test_without_momentum_a_step_is_plain_gradient_descent() -> None:
    w = start()
    for found, rate, g in zip(trajectory(without_momentum, RATES), RATES, gradients(), strict=True):
        w = w - 0.0005 * rate * w - rate * g
        np.testing.assert_allclose(found, w, rtol=1e-12, atol=1e-14)


def test_with_constant_learning_rate_steps_equal_torchs_sgd() -> None:
    rates = [0.1] * STEPS
    for found, expected in zip(trajectory(ours, rates), trajectory(torchs, rates), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


def test_torchs_sgd_differs_from_the_papers_rule_after_a_drop_unless_its_buffers_are_scaled() -> None:
    plain, scaled = trajectory(torchs, RATES), trajectory(torchs, RATES, scale_buffers)
    for number, expected in enumerate(paper(RATES)):
        np.testing.assert_allclose(next(scaled), expected, rtol=1e-12, atol=1e-14)
        apart = abs(next(plain) - expected).max()
        assert apart < 1e-12 if number < DROP else apart > 0.01


def test_float32_at_the_smallest_learning_rate_loses_only_rounding() -> None:
    w = nn.Parameter(torch.from_numpy(start()).float())
    optimizer = sgd_2012([("weight", w)], lr=1e-5)
    velocity, gradient = np.zeros((3, 5)), gradients()[0].astype(np.float32)
    for _ in range(STEPS):
        velocity = 0.9 * velocity - 0.0005 * 1e-5 * w.detach().numpy().astype(float) - 1e-5 * gradient.astype(float)
        w.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
    np.testing.assert_allclose(optimizer.state[w]["velocity"].numpy(), velocity, rtol=1e-6)


def two_layers() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).double()


@pytest.mark.parametrize(
    ("convention", "rates", "decays", "after_drop"),
    [
        ("paper", [0.01, 0.01], [0.0005, 0.0005], [0.001, 0.001]),
        ("source", [0.01, 0.02], [0.0005, 0.0], [0.001, 0.02]),
        ("caffe", [0.01, 0.02], [0.0005, 0.0], [0.001, 0.002]),
    ],
)
def test_convention_sets_learning_rate_and_decay_of_biases(convention, rates, decays, after_drop) -> None:
    net = two_layers()
    optimizer = sgd_2012(net.named_parameters(), convention=convention)
    schedule = step(optimizer, steps_per_epoch=1, total_steps=2, epochs=1)

    def of(key: str) -> list[float]:
        """Learning rate and decay of the first weight and the first bias."""
        owner = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
        return [owner[id(net[0].weight)][key], owner[id(net[0].bias)][key]]

    assert of("lr") == pytest.approx(rates)
    assert of("weight_decay") == pytest.approx(decays)
    # A step with zero gradient shows the decay.
    before = [parameter.detach().clone() for parameter in net.parameters()]
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for old, new, decay in zip(before, net.parameters(), [*decays, *decays], strict=True):
        torch.testing.assert_close(new.detach(), old * (1 - decay * 0.01), rtol=1e-12, atol=0)
    schedule.step()
    assert of("lr") == pytest.approx(after_drop)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.001)  # the one that is logged


@pytest.mark.parametrize("schedule", [constant, step, cosine, one_cycle])
def test_no_schedule_changes_the_bias_learning_rate_of_the_source(schedule) -> None:
    optimizer = sgd_2012(two_layers().named_parameters(), convention="source")
    scheduler = schedule(optimizer, 2, 100)
    for _ in range(100):
        assert optimizer.param_groups[1]["lr"] == 0.02
        optimizer.step()
        scheduler.step()


def test_restored_optimizer_continues_bit_for_bit_across_a_drop() -> None:
    def some_steps(net: nn.Module, optimizer: Optimizer, numbers: range) -> None:
        for number in numbers:
            optimizer.param_groups[0]["lr"] = RATES[number]
            torch.manual_seed(number)
            net(torch.randn(8, 4).double()).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()

    whole, cut = two_layers(), two_layers()
    some_steps(whole, sgd_2012(whole.named_parameters(), convention="source"), range(STEPS))
    first = sgd_2012(cut.named_parameters(), convention="source")
    some_steps(cut, first, range(DROP - 2))
    second = sgd_2012(cut.named_parameters(), convention="source")
    second.load_state_dict(first.state_dict())
    some_steps(cut, second, range(DROP - 2, STEPS))
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), cut.parameters(), strict=True))
    assert second.param_groups[1]["scheduled"] is False


def test_parameter_without_a_gradient_is_unchanged() -> None:
    net = two_layers()
    before = net[0].weight.detach().clone()
    optimizer = sgd_2012(net.named_parameters())
    net[2](torch.ones(1, 3).double()).sum().backward()
    optimizer.step()
    assert torch.equal(net[0].weight, before)


@pytest.mark.parametrize("wrong", [{"lr": -0.1}, {"momentum": 1.0}, {"weight_decay": -1.0}])
def test_wrong_value_is_refused(wrong) -> None:
    with pytest.raises(UserError, match="must not be negative and momentum must be in"):
        sgd_2012(two_layers().named_parameters(), **wrong)


@pytest.mark.parametrize("of_gradient", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("of_velocity", [torch.channels_last, torch.contiguous_format])
def test_memory_format_of_gradient_and_restored_velocity_does_not_matter(of_gradient, of_velocity) -> None:
    torch.manual_seed(0)
    weight, velocity, gradient = torch.randn(3, 4, 3, 2, 2).double()
    w = nn.Parameter(weight.to(memory_format=torch.channels_last))
    optimizer = sgd_2012([("weight", w)], lr=0.1)
    state = optimizer.state_dict()
    state["state"] = {0: {"velocity": velocity.contiguous(memory_format=of_velocity)}}
    optimizer.load_state_dict(state)
    w.grad = gradient.contiguous(memory_format=of_gradient)
    optimizer.step()
    expected = weight + 0.9 * velocity - 0.1 * 0.0005 * weight - 0.1 * gradient
    torch.testing.assert_close(w.detach(), expected, rtol=1e-12, atol=1e-14)
    assert w.is_contiguous(memory_format=torch.channels_last)
