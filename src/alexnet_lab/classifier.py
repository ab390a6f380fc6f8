"""The LightningModule: a network, its loss and metrics, and the factories of its optimizer and schedule.

N samples of this rank's micro-batch, K classes.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from alexnet_lab.data.spec import Batch, mean_over_views
from alexnet_lab.distributed import replica
from alexnet_lab.errors import RunFailed, UserError
from alexnet_lab.loss import CROSS_ENTROPY, TrainingLoss
from alexnet_lab.metrics import ClassificationMetrics, sum_of_losses
from alexnet_lab.optim.schedules import WatchesValidation, logged_lr, steps_of
from alexnet_lab.position import between_epochs

log = logging.getLogger(__name__)

OptimizerFactory = Callable[[Iterable[tuple[str, nn.Parameter]]], Optimizer]
SchedulerFactory = Callable[[Optimizer, int, int], LRScheduler]


class ImageClassifier(pl.LightningModule):
    """Trains `net` by softmax cross-entropy and reports loss, top-1 and top-5.

    The loss of a rank's micro-batch is the *sum* over its samples, scaled so that the mean over ranks (DDP) and over
    micro-batches (lightning) is the mean over the whole global batch: the gradient does not depend on how the batch is
    split, the incomplete last batch included.

    `optimizer` gets the net's named parameters, so that a recipe can treat biases apart; `scheduler` gets the
    optimizer, the optimizer steps of an epoch and those of the run, and may be one that `WatchesValidation`. `seed`
    fixes the dropout of each (step, rank). `loss` is the training objective; evaluation reports plain cross-entropy.
    The state dict is the net's own, under the published names.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory,
        seed: int,
        loss: TrainingLoss = CROSS_ENTROPY,
    ) -> None:
        super().__init__()
        self.net = net
        self._loss = loss
        self.optimizer_factory = optimizer
        self._scheduler = scheduler
        self._seed = seed
        self.train_metrics = ClassificationMetrics()
        self.eval_metrics = ClassificationMetrics()
        self.images: dict[str, int] = {}  # images counted in the last metrics of a split
        self.ended_early: str | None = None  # why training ended before its length
        # Loss sum and count of the epoch at the last logged step; the logged loss is computed from the difference.
        self._logged = torch.zeros(2, dtype=torch.float64)
        self._evaluated = 0  # samples of the global batches of this evaluation
        self._accumulate: int | None = None  # micro-batches per step, by which the batches were cut
        self.register_load_state_dict_pre_hook(_name_as_children)

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning sets it 40 times per step, and a module's own way takes ten times as long.
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def setup(self, stage: str) -> None:
        """Called by lightning once the trainer is known: ranks that see the same samples are counted once."""
        _, replicas = replica(self.trainer)
        for metrics in (self.train_metrics, self.eval_metrics):
            metrics.distributed_available_fn = lambda: replicas > 1

    def forward(self, images: Tensor) -> Tensor:
        """float [N, C, S, S] -> logits [N, K]."""
        logits: Tensor = self.net(images)
        return logits

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        now = self.trainer.accumulate_grad_batches
        if self._accumulate not in (None, now):
            raise RunFailed(
                f"trainer.accumulate_grad_batches was changed from {self._accumulate} to {now} during the run, by a "
                "callback: the batches were made for the first value, so the gradients would be scaled wrongly"
            )
        key = (self._seed, self.current_epoch, batch_idx, self.global_rank)
        seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)
        # The generators themselves: torch.manual_seed takes a millisecond, as it also looks for devices not in use.
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.default_generators[self.device.index].manual_seed(seed)
        elif self.device.type == "mps":
            torch.mps.manual_seed(seed)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The scaled loss of one micro-batch, see the class."""
        logits = self(batch.images)
        loss_sum = self._loss(logits, batch)
        labels = batch.labels if batch.mixture is None else batch.mixture.largest(batch.labels)
        self.train_metrics.update(loss_sum.detach(), logits.detach(), labels)
        _, replicas = replica(self.trainer)
        return loss_sum * (replicas * self.trainer.accumulate_grad_batches / batch.global_size)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Log the step: its gradient is whole and not clipped yet, and a checkpoint comes after it."""
        self._log_step(self.global_step + 1)

    def _log_step(self, step: int) -> None:
        """Log the mean loss since the last logged step, the learning rate and the gradient's norm."""
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every == 0 or step % every:
            return
        total = self.train_metrics.sums()[[0, 3]]
        loss, count = self.over_ranks(total - self._logged).tolist()
        self._logged = total
        rate = logged_lr(self.optimizers().param_groups[0])  # type: ignore[union-attr]
        self._to_loggers({"train/loss_step": loss / count, "lr": rate, **self._gradient_norm()}, step)

    def _gradient_norm(self) -> dict[str, float]:
        """The norm over all parameters; empty if a process holds only a part of them."""
        _, replicas = replica(self.trainer)
        if replicas != self.trainer.world_size or not self.trainer.is_global_zero:
            return {}
        gradients = [parameter.grad for parameter in self.net.parameters() if parameter.grad is not None]
        return {"train/grad_norm": float(nn.utils.get_total_norm(gradients))}

    def on_train_start(self) -> None:
        if between_epochs(self.trainer):  # a run that had ended this way and is continued with more epochs
            self._end_with_the_schedule()

    def on_train_epoch_start(self) -> None:
        self.train_metrics.reset()
        self._logged.zero_()

    def on_train_epoch_end(self) -> None:
        self._report("train", self.train_metrics)
        # Not after the validation, which may be in the middle of an epoch: a run ends with whole epochs.
        self._end_with_the_schedule()

    def _end_with_the_schedule(self) -> None:
        schedule = self.lr_schedulers()
        if isinstance(schedule, WatchesValidation) and schedule.finished:
            self.ended_early = "schedule finished"
            log.info("%s; stopping training", self.ended_early)
            self.trainer.should_stop = True

    def on_validation_epoch_start(self) -> None:
        self.eval_metrics.reset()
        self._evaluated = 0

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The logits, see `mean_over_views`, for callbacks that need more than the metrics."""
        return self._evaluate(batch)

    def on_validation_epoch_end(self) -> None:
        values = self._report("val", self.eval_metrics)
        # Before the epoch's checkpoint, so that it contains the schedule's new state. Only fit has a schedule.
        schedule = self.lr_schedulers()
        if isinstance(schedule, WatchesValidation):
            schedule.validated(1 - values["val/top1"])

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """See `validation_step`."""
        return self._evaluate(batch)

    def on_test_epoch_end(self) -> None:
        self._report("test", self.eval_metrics)

    def _evaluate(self, batch: Batch) -> Tensor:
        self._evaluated += batch.global_size
        logits = mean_over_views(self(batch.images), len(batch.labels))
        self.eval_metrics.update(sum_of_losses(logits, batch.labels), logits, batch.labels)
        return logits

    def _report(self, split: str, metrics: ClassificationMetrics) -> dict[str, float]:
        computed = metrics.compute()
        count = int(computed.get("count", 0))
        assert split == "train" or count == self._evaluated, f"{count} of {self._evaluated} samples were counted"
        self.images[split] = count
        values = {f"{split}/{name}": value for name, value in computed.items() if name != "count"}
        # Lightning's own logging would come after the epoch's checkpoint; callbacks still find the metrics.
        self.log_dict(values, logger=False)
        self._to_loggers(values, self.global_step)
        return values

    def _to_loggers(self, values: Mapping[str, float], step: int) -> None:
        if self.trainer.is_global_zero:
            for logger in self.loggers:
                logger.log_metrics({**values, "epoch": self.current_epoch}, step=step)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optimizer = self.optimizer_factory(self.net.named_parameters())
        self.trainer.fit_loop.setup_data()  # without max_epochs lightning does not know the epoch's length yet
        self._accumulate = self.trainer.accumulate_grad_batches
        scheduler = self._scheduler(optimizer, *steps_of(self.trainer))
        if isinstance(scheduler, WatchesValidation) and not self.trainer.limit_val_batches:
            raise UserError(
                "this scheduler needs validation, which trainer.limit_val_batches=0 turns off; "
                "scheduler=constant|step|cosine|one_cycle does not need it"
            )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step", "frequency": 1}}

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.net.state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        return self.net.load_state_dict(state_dict, strict=strict, assign=assign)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the epoch's running sums over all ranks, so that a run continued in mid-epoch reports the whole epoch."""
        checkpoint["epoch_sums"] = self.over_ranks(torch.cat([self.train_metrics.sums(), self._logged])).tolist()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        rank, _ = replica(self.trainer)
        if rank != 0:
            return
        sums = checkpoint["epoch_sums"]
        self.train_metrics.restore(*sums[:4])
        self._logged = torch.tensor(sums[4:], dtype=torch.float64)

    def over_ranks(self, sums: Tensor) -> Tensor:
        """The sum over all ranks of a small tensor on the host; ranks that see the same samples count once."""
        _, replicas = replica(self.trainer)
        if replicas == 1:
            return sums
        return self.trainer.strategy.reduce(sums.to(self.device), reduce_op="sum").cpu()


def _name_as_children(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Lets a module that contains an `ImageClassifier`, as a copy with averaged weights does, load its own state dict.

    Loading a container goes by the children's names, which `ImageClassifier.state_dict` leaves out.
    """
    for name in [name for name in state_dict if name.startswith(prefix)]:
        state_dict[f"{prefix}net.{name.removeprefix(prefix)}"] = state_dict.pop(name)
