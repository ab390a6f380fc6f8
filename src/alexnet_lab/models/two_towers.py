"""The two-GPU mode of 2012 as a lightning strategy: `trainer=two_towers`, one tower in each of two processes."""

from collections.abc import Callable, Mapping
from typing import Any

import lightning.pytorch as pl
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy, Strategy
from torch import Tensor, nn
from torch.optim import Optimizer

from alexnet_lab.errors import UserError
from alexnet_lab.models.towers import TOWERS, has_towers, is_tower, keep_tower, part_of, whole_of


class TwoTowers(DDPStrategy):
    """Splits the module's `net` (see `towers`); both processes use the same batches, and gradients are not averaged.

    Processes are started as for DDP. The whole network is initialised and then split, so its weights equal those of a
    single process with the same seed. Checkpoints contain the whole network and the optimizer's state, whose tensors
    must have the shape of their parameter or be scalars.

    Source: paper, sections 3.2 and 3.5.
    """

    def __init__(self) -> None:
        super().__init__()

    def check(self, net: nn.Module, compiled: bool) -> None:
        """Raises UserError if the two-tower mode cannot train `net`, which is not yet split."""
        if self.world_size != TOWERS:
            raise UserError(
                f"trainer.devices={self.world_size}: two_towers needs 2, one per tower; trainer=ddp takes any number"
            )
        if not has_towers(net):
            raise UserError(
                "trainer=two_towers: this network does not have two towers; choose model=alexnet_original with "
                "model.towers=2, or trainer=ddp"
            )
        if compiled:
            raise UserError("trainer=two_towers exchanges activations within the network: choose compile=false")
        if getattr(self.precision_plugin, "scaler", None) is not None:
            raise UserError(
                "trainer.precision=16-mixed scales the losses of the towers separately; choose bf16-mixed or 32-true"
            )

    def check_optimizer(self, optimizer: Optimizer) -> None:
        """Raises UserError if the state of `optimizer`, which has made a step, has no value for each weight."""
        if not _is_of_each_weight(optimizer):
            raise UserError(
                f"trainer=two_towers cannot save the state of {type(optimizer).__name__}, which is not one value for "
                "each weight; choose another optimizer"
            )

    @property
    def distributed_sampler_kwargs(self) -> dict[str, Any]:
        """The network has one copy, in all processes."""
        return {"num_replicas": 1, "rank": 0}

    def setup_environment(self) -> None:
        super().setup_environment()
        if not is_tower(self._net):
            self._module.net = keep_tower(self._net, self.global_rank)

    def setup(self, trainer: pl.Trainer) -> None:
        Strategy.setup(self, trainer)  # DDP's method would copy rank 0's weights to the other tower

    def _setup_model(self, model: nn.Module) -> nn.Module:  # type: ignore[override]
        return model

    def setup_precision_plugin(self) -> None:
        super().setup_precision_plugin()
        self.precision_plugin.clip_grad_by_norm = _clip_by_norm_of_both  # type: ignore[method-assign]

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The state of the whole network; collective."""
        return {name: whole_of(part) for name, part in super().lightning_module_state_dict().items()}

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Load this tower's part of the whole network's state."""
        parts = {name: part_of(whole, self.global_rank) for name, whole in checkpoint["state_dict"].items()}
        super().load_model_state_dict({"state_dict": parts}, strict)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The state as of a single process's optimizer; collective."""
        state: dict[str, Any] = super().optimizer_state(optimizer)
        assert _is_of_each_weight(optimizer), "see check_optimizer"
        return {**state, "state": _each_tensor(state["state"], whole_of)}

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Load this tower's part of the whole network's state."""
        parts = [
            {**state, "state": _each_tensor(state["state"], lambda whole: part_of(whole, self.global_rank))}
            for state in checkpoint["optimizer_states"]
        ]
        super().load_optimizer_state_dict({"optimizer_states": parts})

    @property
    def _module(self) -> pl.LightningModule:
        assert self.lightning_module is not None
        return self.lightning_module

    @property
    def _net(self) -> nn.Module:
        net = self._module.net
        assert isinstance(net, nn.Module)
        return net


def _is_of_each_weight(optimizer: Optimizer) -> bool:
    """Whether each tensor of the state has the shape of its parameter or is a scalar."""
    return all(
        value.shape in (parameter.shape, ())
        for parameter, of_parameter in optimizer.state.items()
        for value in of_parameter.values()
        if isinstance(value, Tensor)
    )


def _each_tensor(state: Mapping[int, Any], change: Callable[[Tensor], Tensor]) -> dict[int, dict[str, Any]]:
    """An optimizer's state by parameter, with a function applied to its tensors."""
    return {
        number: {name: change(value) if isinstance(value, Tensor) else value for name, value in values.items()}
        for number, values in state.items()
    }


def _clip_by_norm_of_both(optimizer: Optimizer, clip_val: int | float) -> None:
    """Scale the gradients so that their norm over both towers is at most `clip_val`."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    norm = nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    square = norm.square()
    dist.all_reduce(square)
    nn.utils.clip_grads_with_norm_(parameters, clip_val, square.sqrt())
