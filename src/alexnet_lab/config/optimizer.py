"""Builds the optimizer of a run, on a GPU with a fused kernel, which changes all parameters at once."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from alexnet_lab.classifier import OptimizerFactory
from alexnet_lab.config.build import build_factory

FUSED = ("SGD", "Adam", "AdamW")
"""Classes of torch.optim that have a fused kernel on a GPU."""


def optimizer_factory(settings: Mapping[str, Any], on_gpu: bool) -> OptimizerFactory:
    """Makes the optimizer from a network's named parameters.

    Raises:
        UserError: see `build`; the factory raises it as well.
    """
    make = build_factory(with_fused_kernel(settings, on_gpu), "optimizer", ("params",), Optimizer)

    def factory(params: Iterable[tuple[str, nn.Parameter]]) -> Optimizer:
        return _prepared(make(params))

    return factory


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
