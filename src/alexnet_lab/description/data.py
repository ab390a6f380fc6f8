"""`describe what=data`: what a dataset holds, the steps to the network's input, and a sheet of training images.

C channels, S the network's input size.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alexnet_lab import files
from alexnet_lab.config.build import build
from alexnet_lab.data.dataset import overview
from alexnet_lab.data.epochs import Epochs
from alexnet_lab.data.module import ImageDataModule
from alexnet_lab.data.spec import Batch
from alexnet_lab.description.data_steps import data_steps
from alexnet_lab.errors import printable
from alexnet_lab.pictures.lettering import INK
from alexnet_lab.pictures.pixels import normalisation, pixels_of
from alexnet_lab.pictures.tiles import rows_of_tiles

IMAGES, EPOCHS = 8, 6
"""Rows of the sheet, and the largest number of epochs."""
APART = 16
"""Distance between the image in evaluation and those in training, in pixels."""

Cell = tuple[Tensor, str, str]
"""uint8 [C, S, S], the label below it, and its colour."""


def data(settings: dict[str, Any], outputs: Sequence[Path]) -> None:
    """Print the facts about `settings["data"]`, and draw its first training images in each epoch to `outputs`.

    Raises:
        UserError: something in the settings is wrong, or there are no images.
    """
    module: ImageDataModule = build(settings["data"], "data", ImageDataModule)
    module.prepare_data()
    print(f"{module.spec.name}\n{overview(module.dataset)}")
    for number, step in enumerate(data_steps(module), start=1):
        print(f"{number:2}. {step}")
    if not outputs:
        return
    trainer = settings.get("trainer") or {}
    length = trainer.get("max_epochs") or EPOCHS
    epochs = min(EPOCHS, length) if length > 0 else EPOCHS
    rows = list(cells(module, IMAGES, epochs, shuffled=not trainer.get("overfit_batches")))
    picture = rows_of_tiles(rows, APART, ["evaluation", *(f"epoch {epoch + 1}" for epoch in range(epochs))])
    for path in outputs:
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(path) as unfinished:
            picture.save(unfinished, "PNG")
        files.print_written(path)


def cells(data: ImageDataModule, images: int, epochs: int, shuffled: bool = True) -> Iterator[list[Cell]]:
    """The row of each image: as evaluation sees it, then as the network gets it in each epoch."""
    seen = Epochs(data, shuffled)
    for sample in seen.first(images).tolist():
        row = [_cell(data, seen.evaluated(sample), 0)]
        for epoch in range(epochs):
            row.append(_cell(data, *seen.trained(sample, epoch)))
        yield row


def _cell(data: ImageDataModule, batch: Batch, place: int) -> Cell:
    shown = batch.images[place : place + 1]
    return pixels_of(shown, *normalisation(data.preprocessing, shown))[0], _label(data, batch, place), INK


def _label(data: ImageDataModule, batch: Batch, place: int) -> str:
    """The class; of a mixed image, the share and class of both, in two lines."""
    names, label = [printable(name) for name in data.spec.classes], int(batch.labels[place])
    if batch.mixture is None:
        return names[label]
    share = float(batch.mixture.share(torch.float64)[place])
    if share == 1:
        return names[label]
    return f"{share:.0%} {names[label]}\n{1 - share:.0%} {names[int(batch.mixture.partners[place])]}"
