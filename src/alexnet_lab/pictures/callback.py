"""The callback that draws a run's pictures: learning curves, network input, filters, predictions, confusion matrix.

Shapes: N images of a batch, M kept ones, C channels, S the network's input size, D features, K classes.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from PIL.Image import Image
from torch import Tensor, nn

from alexnet_lab.data.preprocessing import Preprocessing
from alexnet_lab.data.spec import Batch
from alexnet_lab.distributed import replica
from alexnet_lab.pictures.confusion import confusion_picture
from alexnet_lab.pictures.curves import curves_picture
from alexnet_lab.pictures.filters import filters_picture
from alexnet_lab.pictures.neighbours import neighbours_picture
from alexnet_lab.pictures.pixels import normalisation, pixels_of
from alexnet_lab.pictures.predictions import predictions_picture
from alexnet_lab.pictures.tiles import batch_picture

log = logging.getLogger(__name__)

SHOWN = 8
"""Number of images in `predictions`."""
IN_BATCH = 32
MOST_CLASSES = 100
"""Largest number of classes for which a confusion matrix is readable."""
CURVES_SHARE, FIRST_CURVES = 0.01, 1.0
"""Largest share of the time so far for redrawing the curves, and the time expected for the first drawing, in s."""


class Pictures(pl.Callback):
    """Writes PNGs to `folder` and logs them as `pictures/NAME` to every logger that accepts images.

    `batch` is the first training batch after augmentation. The others show the network at the end of training, using
    its last validation: the `filters` of conv1, `predictions`, `neighbours` by the outputs of the last hidden layer
    (fc7), and, for at most 100 classes, the `confusion` matrix over all ranks. `curves` are the learning curves of the
    whole run, those before a resumption included, however the run ends; see `pictures.curves`. Their file is also
    redrawn at the start of an epoch while this takes at most 1 % of the time so far.

    At most `images` validation images are kept, as uint8 on the device, spread over the split. A picture that cannot be
    drawn is left out with a warning; training continues.
    """

    def __init__(self, folder: str, images: int = 400) -> None:
        self._folder = Path(folder)
        self._limit = images
        self._kept: list[tuple[Tensor, ...]] = []  # images, logits, labels, features
        self._normalisation: tuple[Tensor, Tensor] | None = None
        self._room = images  # number of images that can still be kept
        self._counts: Tensor | None = None  # int64 [K, K], true class, predicted class
        self._features: Tensor | None = None  # [N, D] of the batch
        self._hook: Any = None
        self._started = time.perf_counter()
        self._redrawing, self._one_drawing = 0.0, FIRST_CURVES  # s, all of them and the last one
        self.seconds = 0.0
        """Time spent in this callback, in s."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        allowed = CURVES_SHARE * (time.perf_counter() - self._started)
        if trainer.current_epoch and self._redrawing + self._one_drawing <= allowed and self._wanted(trainer):
            before = self.seconds
            self._draw_curves(trainer, is_last=False)
            self._one_drawing = self.seconds - before
            self._redrawing += self._one_drawing

    def run_ended(self, trainer: pl.Trainer) -> None:
        """Draw the learning curves; called on rank 0 however the run ended, also when it was interrupted or failed."""
        if self._wanted(trainer):
            self._draw_curves(trainer, is_last=True)

    def _draw_curves(self, trainer: pl.Trainer, is_last: bool) -> None:
        with self._harmless("curves"):
            known: Any = [logger.rows() for logger in trainer.loggers if hasattr(logger, "rows")]
            if picture := curves_picture(known[0] if known else []):
                self._show(trainer, "curves", picture, is_last)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        if trainer.global_step == 0 and batch_idx == 0 and self._wanted(trainer) and len(batch.labels):
            with self._harmless("batch"):
                facts, shown = _preprocessing(trainer), batch.images[:IN_BATCH]
                images = pixels_of(shown, *normalisation(facts, shown)).cpu()
                self._show(trainer, "batch", batch_picture(images, _words(batch, facts.classes)))

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._kept.clear()
        self._room = self._limit
        self._counts = None
        if trainer.state.fn == "fit" and self._wanted(trainer):
            with self._harmless("neighbours"):
                last = [layer for layer in pl_module.modules() if isinstance(layer, nn.Linear)][-1]
                self._hook = last.register_forward_pre_hook(self._keep_features)

    def _keep_features(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._features = inputs[0].detach()

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if trainer.state.fn != "fit":
            return
        started = time.perf_counter()
        self._count(outputs, batch.labels)
        self.seconds += time.perf_counter() - started
        if self._wanted(trainer):
            with self._harmless("predictions"):
                self._keep(trainer, outputs, batch, batch_idx)

    def _count(self, logits: Tensor, labels: Tensor) -> None:
        """Count the confusions, on every rank: the counts are summed over ranks."""
        number = logits.shape[1]
        if number > MOST_CLASSES:
            return
        if self._counts is None:
            self._counts = torch.zeros(number, number, dtype=torch.int64, device=logits.device)
        cells = labels * number + logits.argmax(1)
        self._counts.view(-1).index_add_(0, cells, torch.ones_like(cells))

    def _keep(self, trainer: pl.Trainer, logits: Tensor, batch: Batch, batch_idx: int) -> None:
        """Keep a few images of every batch or every n-th batch, without waiting for the device."""
        batches = int(trainer.num_val_batches[0])
        if batch_idx % max(1, batches // self._limit):
            return
        number = min(-(-self._limit // batches), self._room, len(batch.labels))
        if number == 0:
            return
        self._room -= number
        features = logits if self._features is None else self._features
        if self._normalisation is None:
            self._normalisation = normalisation(_preprocessing(trainer), batch.images)
        images = pixels_of(batch.images[:number], *self._normalisation)
        # Copies, since a view would keep the memory of its whole batch.
        self._kept.append((images, *(one[:number].detach().clone() for one in (logits, batch.labels, features))))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # On all ranks: some strategies, and the sum of the counts, are collective.
        state = trainer.strategy.lightning_module_state_dict()
        counts = self._sum_over_ranks(trainer)
        if self._wanted(trainer):
            classes = _preprocessing(trainer).classes
            with self._harmless("filters"):
                self._draw_filters(trainer, state)
            if counts is not None:
                with self._harmless("confusion"):
                    self._show(trainer, "confusion", confusion_picture(counts.cpu(), classes))
            if self._kept:
                self._draw_kept(trainer, classes)
        self._kept.clear()

    def _draw_filters(self, trainer: pl.Trainer, state: Mapping[str, Tensor]) -> None:
        kernels = [weight for weight in state.values() if weight.dim() == 4]
        if kernels:  # of a network outside of this package, there may be none, or one
            has_towers = len(kernels) > 1 and len(kernels[0]) == 2 * kernels[1].shape[1]  # conv2 reads its own tower
            self._show(trainer, "filters", filters_picture(kernels[0], 2 if has_towers else 1))

    def _draw_kept(self, trainer: pl.Trainer, classes: Sequence[str]) -> None:
        kept: list[Tensor] = []
        with self._harmless("predictions"):
            kept = [torch.cat(parts).cpu() for parts in zip(*self._kept, strict=True)]
            images, logits, labels, features = kept
            some = torch.linspace(0, len(labels) - 1, min(SHOWN, len(labels))).long()
            best = predictions_picture(images[some], logits[some].float().softmax(1), labels[some], classes)
            self._show(trainer, "predictions", best)
        # A compiled network does not call the hook, so there are no features.
        if kept and self._features is not None and len(labels) > 1:
            with self._harmless("neighbours"):
                self._show(trainer, "neighbours", neighbours_picture(images, features, labels, classes))

    def _sum_over_ranks(self, trainer: pl.Trainer) -> Tensor | None:
        _, replicas = replica(trainer)
        if self._counts is None or replicas == 1:
            return self._counts
        return trainer.strategy.reduce(self._counts, reduce_op="sum")

    def _wanted(self, trainer: pl.Trainer) -> bool:
        return trainer.is_global_zero and not trainer.fast_dev_run  # type: ignore[attr-defined]

    def _show(self, trainer: pl.Trainer, name: str, picture: Image, logged: bool = True) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{name}.png"
        picture.save(path, compress_level=1)  # takes a third of the default's time
        for logger in trainer.loggers:
            if logged and hasattr(logger, "log_image"):
                logger.log_image(f"pictures/{name}", [str(path)], step=trainer.global_step)

    @contextmanager
    def _harmless(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        except Exception as error:
            # A full disk is reported in one line; anything else is a defect and gets a traceback.
            defect = not isinstance(error, OSError)
            log.warning("pictures: %s is left out (%s: %s)", name, type(error).__name__, error, exc_info=defect)
        finally:
            self.seconds += time.perf_counter() - started


def _preprocessing(trainer: pl.Trainer) -> Preprocessing:
    facts: Preprocessing = trainer.datamodule.preprocessing  # type: ignore[attr-defined]
    return facts


def _words(batch: Batch, classes: Sequence[str]) -> list[str]:
    """The class of each of the first images; of mixed ones, the class with the larger share, and this share."""
    if batch.mixture is None:
        return [classes[label] for label in batch.labels[:IN_BATCH].tolist()]
    labels, share = batch.mixture.largest(batch.labels), batch.mixture.share(torch.float32)
    shares = torch.maximum(share, 1 - share)[:IN_BATCH].tolist()
    return [
        classes[label] if share == 1 else f"{share:.0%} {classes[label]}"
        for label, share in zip(labels[:IN_BATCH].tolist(), shares, strict=True)
    ]
