"""Supported strategies of lightning: those whose ranks are processes started beforehand."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from hydra.utils import get_object
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, StrategyRegistry
from torch.distributed import Backend
from torch.nn.parallel import DistributedDataParallel

from alexnet_lab.config.advice import did_you_mean

POPEN = "popen"
"""The start method of strategies whose processes are started externally, as by torchrun."""


GIVEN = ("self", "module", "device_ids", "output_device", "process_group", "device_mesh")
"""Arguments of DistributedDataParallel that lightning passes."""
NEEDS_TARGET = (
    "a strategy with options needs its class: "
    "'trainer.strategy={_target_: lightning.pytorch.strategies.DDPStrategy, process_group_backend: gloo}'"
)
BACKENDS = [*{*Backend.backend_list} - {"undefined", "fake"}]


def works_here(strategy: Any, accelerator: Any = "auto") -> Any:
    """Return `trainer.strategy` unchanged: a registered name, or a node with a `_target_`.

    Raises:
        ValueError: it would start its own processes by fork or spawn, or shard the network or the optimizer; DDP has
            no such option; or it cannot be used on this machine.
    """
    if isinstance(strategy, Mapping):
        if not strategy.get("_target_"):
            raise ValueError(NEEDS_TARGET)
        kind, options = _kind(strategy.get("_target_")), strategy
    elif isinstance(strategy, str) and strategy in StrategyRegistry:
        kind, options = StrategyRegistry[strategy]["strategy"], StrategyRegistry[strategy]["init_params"]
    else:
        kind, options = None, {}
    if strategy == "auto" or _fits(kind, options):
        if isinstance(strategy, Mapping) and kind:
            _check_options(kind, options, accelerator)
        return strategy
    raise ValueError(
        f"choose {', '.join(['auto', *_names()])}; trainer=ddp trains on every GPU of this machine, trainer=ddp_cpu in "
        "two processes on the CPU"
    )


def _check_options(kind: type, options: Mapping[str, Any], accelerator: Any) -> None:
    """Check the options that lightning passes to torch, which `build.check` cannot see."""
    own = inspect.signature(kind).parameters
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in own.values()):
        torch_options = inspect.signature(DistributedDataParallel).parameters
        for key in [key for key in options if key not in own and not str(key).startswith("_")]:
            if key not in torch_options or key in GIVEN:
                known = [*own.keys() - {"kwargs"}, *torch_options.keys() - {*GIVEN}]
                raise ValueError(f"there is no option {key!r}{did_you_mean(key, known)}")
            if isinstance(torch_options[key].default, bool) and not isinstance(options[key], bool):
                raise ValueError(f"{key} must be true or false")
            if isinstance(options[key], str):
                raise ValueError(f"{key} cannot be text")
    no_gpu = "" if torch.cuda.is_available() and accelerator != "cpu" else "needs a GPU; "
    if issubclass(kind, SingleDeviceStrategy) and str(options.get("device")).startswith("cuda") and no_gpu:
        raise ValueError(f"device={options['device']} {no_gpu}omit device")
    for part in filter(None, str(options.get("process_group_backend") or "").split(",")):
        backend = part.rpartition(":")[2]
        if backend not in BACKENDS or (backend == "nccl" and no_gpu):
            reason = f"{no_gpu if backend == 'nccl' else ''}choose gloo, on GPUs nccl, or omit it"
            raise ValueError(f"process_group_backend={part}: {reason}")


def _names() -> Iterable[str]:
    for name in sorted(StrategyRegistry.available_strategies()):
        if _fits(StrategyRegistry[name]["strategy"], StrategyRegistry[name]["init_params"]):
            yield name


def _fits(kind: type | None, options: Mapping[str, Any]) -> bool:
    if kind is None or options.get("start_method", POPEN) != POPEN:
        return False
    # Subclasses of DDP in lightning, such as DeepSpeed's, behave differently.
    is_ddp = issubclass(kind, DDPStrategy) and not kind.__module__.startswith("lightning.")
    return is_ddp or kind in (DDPStrategy, SingleDeviceStrategy)


def _kind(target: Any) -> type | None:
    """The class that a node names; `build.check` reports a missing class."""
    try:
        found = get_object(str(target))
    except Exception:
        return DDPStrategy
    return found if inspect.isclass(found) else DDPStrategy
