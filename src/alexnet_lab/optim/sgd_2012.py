"""The optimizer of 2012, which keeps the learning rate inside the velocity.

    v <- momentum * v - weight_decay * lr * w - lr * g
    w <- w + v

g is the gradient's mean over the batch. With a constant learning rate this is torch's SGD, whose buffer is -v / lr.
When the learning rate changes, torch rescales all past gradients; here they keep the one they were added with.

Source: Krizhevsky, Sutskever, Hinton, NIPS 2012, section 5; computerhistory/AlexNet-Source-Code, layer-params-145;
BVLC/caffe, models/bvlc_reference_caffenet.
"""

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer
from torch.optim.sgd import sgd

from alexnet_lab.errors import UserError

Convention = Literal["paper", "source", "caffe"]
FUSED = ("cpu", "cuda")


def sgd_2012(
    params: Iterable[tuple[str, Parameter]],
    lr: float = 0.01,
    momentum: float = 0.9,
    weight_decay: float = 0.0005,
    convention: Convention = "paper",
) -> "SGD2012":
    """The optimizer of a network's named parameters, of which those called `bias` follow the `convention`.

        paper    the same learning rate and decay as the weights
        source   twice the initial learning rate, which no schedule changes, and no decay
        caffe    twice the learning rate of the weights, and no decay

    Raises:
        UserError: a value is out of range.
    """
    if lr < 0 or weight_decay < 0 or not 0 <= momentum < 1:
        raise UserError(
            "optimizer: lr and weight_decay must not be negative and momentum must be in [0, 1), got "
            f"lr={lr}, weight_decay={weight_decay}, momentum={momentum}"
        )
    weights: list[Parameter] = []
    biases: list[Parameter] = []
    for name, parameter in params:
        (biases if name.rpartition(".")[2] == "bias" else weights).append(parameter)
    if convention == "paper":
        groups: list[dict[str, Any]] = [{"params": weights + biases}]
    else:
        apart = {"lr": 2 * lr, "weight_decay": 0.0, "scheduled": convention != "source"}
        groups = [{"params": weights}, {"params": biases, **apart}]
    return SGD2012(groups, lr=lr, momentum=momentum, weight_decay=weight_decay, scheduled=True)


class SGD2012(Optimizer):
    """The rule of this module; the state of each parameter is its `velocity`, v.

    A group's `scheduled` decides whether schedules may change its learning rate.
    """

    def __init__(self, params: Any, lr: float, momentum: float, weight_decay: float, scheduled: bool) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "scheduled": scheduled}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step of every parameter that has a gradient; the value of `closure`, which makes them, if given."""
        value = None
        if closure is not None:
            with torch.enable_grad():
                value = closure()
        for group in self.param_groups:
            self._step_group(group)
        return value

    def _step_group(self, group: dict[str, Any]) -> None:
        params: list[Tensor] = [parameter for parameter in group["params"] if parameter.grad is not None]
        if not params:
            return
        velocities: list[Tensor | None] = [self._velocity(parameter) for parameter in params]
        # torch's kernel makes buf <- momentum * buf + (1 - dampening) * (g + weight_decay * w); w <- w - lr * buf.
        # With these two values its buffer is exactly v: one pass over memory instead of four. Without momentum
        # there is no buffer, and the learning rate is passed unchanged.
        rate, dampening = (-1.0, 1.0 + group["lr"]) if group["momentum"] else (group["lr"], 0.0)
        sgd(
            params,
            [_laid_out_as(parameter, parameter.grad) for parameter in params],
            velocities,
            fused=all(parameter.device.type in FUSED for parameter in params),
            lr=rate,
            dampening=dampening,
            momentum=group["momentum"],
            weight_decay=group["weight_decay"],
            nesterov=False,
            maximize=False,
        )

    def _velocity(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        state["velocity"] = velocity = _laid_out_as(parameter, state["velocity"])
        return velocity


def _laid_out_as(parameter: Tensor, value: Tensor | None) -> Tensor:
    """`value` in the parameter's memory format: the fused kernel matches elements by position in memory."""
    assert value is not None
    return value if value.stride() == parameter.stride() else torch.empty_like(parameter).copy_(value)
