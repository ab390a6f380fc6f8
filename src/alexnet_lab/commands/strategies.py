"""Which of lightning's strategies a run can have: those whose ranks are processes that are started before them."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from hydra.utils import get_object
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, StrategyRegistry

POPEN = "popen"
"""The start method of strategies that leave it to whoever starts a run to start its processes."""


def works_here(strategy: Any) -> Any:
    """`trainer.strategy` as it is: a registered name, or a node with a `_target_`.

    Raises:
        ValueError: it would start processes of its own by fork or spawn, or cut up the network or the optimizer.
    """
    if isinstance(strategy, Mapping):
        kind, options = _kind(strategy.get("_target_")), strategy
    elif isinstance(strategy, str) and strategy in StrategyRegistry:
        kind, options = StrategyRegistry[strategy]["strategy"], StrategyRegistry[strategy]["init_params"]
    else:
        kind, options = None, {}
    if strategy == "auto" or _fits(kind, options):
        return strategy
    raise ValueError(
        f"choose {', '.join(['auto', *_names()])}; trainer=ddp trains on every GPU of this machine, trainer=ddp_cpu in "
        "two processes on the CPU"
    )


def _names() -> Iterable[str]:
    for name in sorted(StrategyRegistry.available_strategies()):
        if _fits(StrategyRegistry[name]["strategy"], StrategyRegistry[name]["init_params"]):
            yield name


def _fits(kind: type | None, options: Mapping[str, Any]) -> bool:
    if kind is None or options.get("start_method", POPEN) != POPEN:
        return False
    # Lightning's own kinds of DDP, as DeepSpeed's, are others than their parent.
    of_ddp = issubclass(kind, DDPStrategy) and not kind.__module__.startswith("lightning.")
    return of_ddp or kind in (DDPStrategy, SingleDeviceStrategy)


def _kind(target: Any) -> type | None:
    """The class that a node names; that there is none is reported by `build.check`."""
    try:
        found = get_object(str(target))
    except Exception:
        return DDPStrategy
    return found if inspect.isclass(found) else DDPStrategy
