"""Statistics of every layer at an interval of steps: activations, gradients, weights and their updates.

L layers.
"""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from alexnet_lab import files
from alexnet_lab.callbacks.compiled import CudaGraph
from alexnet_lab.data.spec import Batch
from alexnet_lab.distributed import replica
from alexnet_lab.errors import UserError, cannot_be_written
from alexnet_lab.metrics import at_least_float32

OF_OUTPUTS = ("activation_mean", "activation_std", "zeros")
OF_PARAMETERS = ("gradient_norm", "gradient_mean_abs", "weight_norm", "update_ratio")
COLUMNS = ("epoch", "step", "layer", *OF_OUTPUTS, *OF_PARAMETERS)
FILE = "layer_statistics.csv"


class LayerStatistics(pl.Callback):
    """Writes `layer_statistics.csv` to `folder`, a row per layer and step, and logs `layers/<layer>/<name>`.

    The layers are those with parameters, and the activation functions. A row describes one optimizer step:

    - `activation_mean`, `activation_std` and `zeros`, the fraction of zeros, of the layer's outputs for the global
      batch: of all ranks and micro-batches;
    - `gradient_norm` and `gradient_mean_abs`: the gradient of the layer's parameters, before clipping;
    - `weight_norm`: their norm before the step; `update_ratio`: the norm of the step's change divided by it.

    A value that does not exist is left out. With trainer=two_towers the rows describe the tower of rank 0. The training
    is not changed. Other steps cost nothing, and a recorded step waits for the device once.
    """

    def __init__(self, folder: str, every_n_steps: int = 100) -> None:
        if every_n_steps < 1:
            raise UserError(f"callbacks.layer_statistics.every_n_steps must be at least 1, got {every_n_steps}")
        self._path = Path(folder) / FILE
        self._every = every_n_steps
        self._now: _Step | None = None  # the step that is being recorded

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Raises UserError for a compiled or recorded network, which does not call the hooks of its layers."""
        recorded = any(isinstance(one, CudaGraph) for one in trainer.callbacks)  # type: ignore[attr-defined]
        if recorded or any(layer._compiled_call_impl is not None for layer in pl_module.modules()):
            raise UserError(
                "callbacks.layer_statistics reads the outputs of layers, which a compiled network does not pass on; "
                "choose compile=false"
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Drop the rows after the step from which the run continues: it writes them again.

        Raises UserError if the file is damaged.
        """
        if trainer.is_global_zero:
            try:
                kept = self._rows_until(trainer.global_step) if self._path.exists() else []
            except (ValueError, IndexError) as error:
                raise UserError(f"{self._path} is damaged ({error}): repair it, or move it away") from error
            files.write(self._path, ",".join(COLUMNS) + "\n" + "".join(kept))

    def _rows_until(self, step: int) -> list[str]:
        """Without a last line that was cut off by a kill."""
        lines = self._path.read_text(encoding="utf-8").splitlines(keepends=True)[1:]
        return [line for line in lines if line.endswith("\n") and int(line.split(",")[1]) <= step]

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        number = trainer.global_step + 1
        if self._now is None and number % self._every == 0:
            self._now = _Step(number, trainer, pl_module.net)  # type: ignore[arg-type]

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        if self._now and trainer.is_global_zero:  # gradients and weights are the same on all ranks
            self._now.before_update()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Before the step's checkpoint, so that a continued run has the row of each step before it."""
        if self._now is None or trainer.global_step < self._now.number:
            return
        layers = self._now.end(trainer)
        self._now = None
        if trainer.is_global_zero:
            at = {"epoch": trainer.current_epoch, "step": trainer.global_step}
            self._write([{**at, "layer": layer, **values} for layer, values in layers.items()])
            named = {f"layers/{layer}/{name}": one for layer, values in layers.items() for name, one in values.items()}
            for logger in trainer.loggers:
                if getattr(logger, "takes_layers", True):
                    logger.log_metrics({**named, "epoch": trainer.current_epoch}, step=trainer.global_step)

    def _write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        try:
            with self._path.open("a", newline="") as file:
                csv.DictWriter(file, COLUMNS, lineterminator="\n").writerows(rows)
        except OSError as error:
            raise cannot_be_written(self._path, error) from error


class _Step:
    """The numbers of one optimizer step, which stay on the device until `end`."""

    def __init__(self, number: int, trainer: pl.Trainer, net: nn.Module) -> None:
        self.number = number
        self._trainer = trainer
        self._layers = dict(_layers(net))
        self._outputs: list[tuple[str, int, Tensor]] = []  # layer, number of values, mean, variance and zeros
        self._before: dict[str, list[Tensor]] = {}  # the parameters before the update
        self._norms: dict[str, list[Tensor]] = {}  # in the order of `OF_PARAMETERS`
        self._hooks = [layer.register_forward_hook(self._hook(name)) for name, layer in self._layers.items()]

    def _hook(self, name: str) -> Any:
        def seen(layer: nn.Module, inputs: Any, output: Any) -> None:
            # Not those of a validation between two micro-batches, nor of a rank without samples.
            if self._trainer.training and isinstance(output, Tensor) and output.numel():
                values = at_least_float32(output.detach())
                variance, mean = torch.var_mean(values, correction=0)
                numbers = torch.stack([mean, variance, (values == 0).to(mean.dtype).mean()])
                self._outputs.append((name, values.numel(), numbers))

        return seen

    def before_update(self) -> None:
        """The gradients are whole, and not clipped yet."""
        for name, layer in self._layers.items():
            if parameters := _parameters(layer):
                gradients = [
                    parameter.grad for parameter in layer.parameters(recurse=False) if parameter.grad is not None
                ]
                count = sum(map(Tensor.numel, gradients))
                absent = torch.full((), math.nan, device=parameters[0].device)
                norms = (_norm(gradients), _norm(gradients, 1) / count) if count else (absent, absent)
                self._norms[name] = [*norms, _norm(parameters)]
                self._before[name] = [parameter.clone() for parameter in parameters]

    def end(self, trainer: pl.Trainer) -> dict[str, dict[str, float]]:
        """The values of each layer after the update, without those that do not exist; collective."""
        for hook in self._hooks:
            hook.remove()
        for name, before in self._before.items():
            change = [now - earlier for now, earlier in zip(_parameters(self._layers[name]), before, strict=True)]
            self._norms[name].append(_norm(change) / self._norms[name][2])
        parts = [*(numbers for *_, numbers in self._outputs), *map(torch.stack, self._norms.values())]
        host = (torch.cat(parts) if parts else torch.empty(0)).cpu().double()  # the only transfer
        outputs, norms = host.split([3 * len(self._outputs), 4 * len(self._norms)])
        sums = _over_ranks(trainer, self._sums(outputs.view(-1, 3)))
        of_parameters = dict(zip(self._norms, norms.view(-1, 4).tolist(), strict=True))
        found = {}
        for name, (count, *totals) in zip(self._layers, sums.tolist(), strict=True):
            values = dict(zip(OF_PARAMETERS, of_parameters.get(name, ()), strict=False))
            if count:
                mean, squares, zeros = (total / count for total in totals)
                of_outputs = (mean, math.sqrt(max(squares - mean**2, 0.0)), zeros)
                values = {**dict(zip(OF_OUTPUTS, of_outputs, strict=True)), **values}
            found[name] = {key: value for key, value in values.items() if not math.isnan(value)}
        return found

    def _sums(self, outputs: Tensor) -> Tensor:
        """float64 [L, 4]: number of the values of each layer, their sum, the sum of their squares, number of zeros."""
        places = {name: place for place, name in enumerate(self._layers)}
        sums = torch.zeros(len(places), 4, dtype=torch.float64)
        for (name, count, _), (mean, variance, zeros) in zip(self._outputs, outputs.tolist(), strict=True):
            sums[places[name]] += count * torch.tensor([1.0, mean, variance + mean**2, zeros], dtype=torch.float64)
        return sums


def _layers(net: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, layer in net.named_modules():
        if _parameters(layer) or type(layer).__module__ == "torch.nn.modules.activation":
            yield name or "network", layer


def _parameters(layer: nn.Module) -> list[Tensor]:
    """The layer's own parameters, without those of the layers that it contains."""
    return [parameter.detach() for parameter in layer.parameters(recurse=False)]


def _norm(tensors: Sequence[Tensor], order: float = 2.0) -> Tensor:
    """A scalar of at least float32: the norm of all values of the tensors together."""
    return get_total_norm([at_least_float32(one) for one in tensors], order)


def _over_ranks(trainer: pl.Trainer, sums: Tensor) -> Tensor:
    """The sum over all ranks that share a batch, on the host."""
    _, replicas = replica(trainer)
    if replicas == 1:
        return sums
    return trainer.strategy.reduce(sums.to(trainer.strategy.root_device), reduce_op="sum").cpu()
