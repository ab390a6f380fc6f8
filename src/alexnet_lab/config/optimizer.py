"""Builds the optimizer of a run, on a GPU with a fused kernel, which changes all parameters at once."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from alexnet_lab.classifier import OptimizerFactory
from alexnet_lab.config.build import build_factory
from alexnet_lab.config.layer_patterns import Factors
from alexnet_lab.errors import UserError
from alexnet_lab.optim.schedules import LR_FACTOR

OF_EACH = ("params", "param_names")
"""What a parameter group lists for each of its parameters."""
FUSED = ("SGD", "Adam", "AdamW")
"""Classes of torch.optim that have a fused kernel on a GPU."""


def optimizer_factory(
    settings: Mapping[str, Any], on_gpu: bool, factors: Mapping[str, Factors] | None = None
) -> OptimizerFactory:
    """Makes the optimizer from a network's named parameters, without the frozen ones.

    `factors`: by name of a parameter; of others they are 1.

    Raises:
        UserError: see `build`; the factory raises it as well.
    """
    make = build_factory(with_fused_kernel(settings, on_gpu), "optimizer", ("params",), Optimizer)

    def factory(params: Iterable[tuple[str, nn.Parameter]]) -> Optimizer:
        trained = [(name, parameter) for name, parameter in params if parameter.requires_grad]
        optimizer = make(trained)
        if factors:
            _apply(optimizer, {parameter: factors.get(name, Factors()) for name, parameter in trained})
        return _prepared(optimizer)

    return factory


def _apply(optimizer: Optimizer, factors: Mapping[nn.Parameter, Factors]) -> None:
    """Split each parameter group by the factors of its parameters.

    A schedule scales the learning rate that a group begins with, so the factors stay. A group with the factors 1 comes
    first.

    Raises:
        UserError: the optimizer has no such groups.
    """
    groups = []
    for group in optimizer.param_groups:
        parts: dict[Factors, list[int]] = {}
        for place, parameter in enumerate(group["params"]):
            parts.setdefault(factors[parameter], []).append(place)
        for part in sorted(parts, key=lambda one: (one != Factors(), one.lr == 0)):
            listed = {key: [group[key][place] for place in parts[part]] for key in OF_EACH if key in group}
            new = {**group, **listed, LR_FACTOR: part.lr}
            for key, factor in zip(Factors._fields, part, strict=True):
                if key in group:
                    new[key] = group[key] * factor
                elif factor != 1:
                    raise UserError(f"layers: this optimizer has no {key} for a group of parameters")
            groups.append(new)
    optimizer.param_groups[:] = groups


def with_fused_kernel(settings: Mapping[str, Any], on_gpu: bool) -> dict[str, Any]:
    """An optimizer's settings, with `fused` on a GPU where its class has such a kernel and none is chosen."""
    package, _, name = str(settings.get("_target_")).rpartition(".")
    chosen = settings.get("differentiable") or any(settings.get(key) is not None for key in ("fused", "foreach"))
    if not on_gpu or chosen or name not in FUSED or not package.startswith("torch.optim"):
        return dict(settings)
    return {**settings, "fused": True}


def _prepared(optimizer: Optimizer) -> Optimizer:
    """Let a fused optimizer be used as any other: with gradients scaled for float16, and checkpoints of any device."""
    # Otherwise its kernel removes the scale of trainer.precision=16-mixed: too late for the logged norm, and lightning
    # refuses to clip.
    optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]
    optimizer.register_load_state_dict_pre_hook(_keep_own_kernels)
    optimizer.register_load_state_dict_post_hook(_lay_out)
    return optimizer


def _keep_own_kernels(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """The loaded `state` with this optimizer's `fused`, which depends on the device."""
    own = [{"fused": group["fused"]} if "fused" in group else {} for group in optimizer.param_groups]
    loaded = state["param_groups"]
    if len(own) != len(loaded):
        return state  # torch reports it
    return {**state, "param_groups": [{**group, **kept} for group, kept in zip(loaded, own, strict=True)]}


def _lay_out(optimizer: Optimizer) -> None:
    """Give the state the strides of its parameters, because fused kernels match elements by their place in memory."""
    for group in optimizer.param_groups:
        for parameter in group["params"] if group.get("fused") else ():
            state = optimizer.state.get(parameter, {})
            for name, value in state.items():
                is_map = isinstance(value, torch.Tensor) and value.shape == parameter.shape
                if is_map and value.stride() != parameter.stride():
                    state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
