"""Fetches and checks a dataset, and says what it is."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from alexnet_lab.commands.build import build
from alexnet_lab.data import fashion_mnist_files
from alexnet_lab.data.dataset import SplitName
from alexnet_lab.data.fashion_mnist import FashionMnist
from alexnet_lab.data.module import ImageDataModule

SPLITS: tuple[SplitName, ...] = ("train", "val", "test")


def prepare(config: DictConfig) -> None:
    """See to it that the dataset of `config.data` is there, read every split of it once, and print what was found.

    Raises:
        UserError: a wrong key or value, or the files can be had nowhere, or are damaged.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    settings: dict[str, Any] = OmegaConf.to_container(config.data, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    data: ImageDataModule = build(settings, "data")
    data.prepare_data()
    for stage in ("fit", "test"):
        data.setup(stage)
    table = Table(title=f"dataset {data.spec.name}", show_header=False, title_justify="left")
    for label, text in _rows(data):
        table.add_row(label, text)
    console = Console()
    console.print(table)
    for line in _places(data, Path(settings.get("dir", ""))):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _rows(data: ImageDataModule) -> Iterable[tuple[str, str]]:
    for name in SPLITS:
        split = data.dataset.split(name)
        shape = " x ".join(map(str, split.images.shape[1:]))
        yield name, f"{len(split.rows):,} images, stored as {shape} {split.images.dtype}"
    yield "classes", f"{data.spec.num_classes}: {', '.join(data.spec.classes)}"


def _places(data: ImageDataModule, folder: Path) -> Iterable[str]:
    if isinstance(data.dataset, FashionMnist):
        found = fashion_mnist_files.locate(folder) or {}
        yield from (f"{name}: {path}" for name, path in found.items())
    else:
        yield "made in memory at every start: there is nothing to prepare"
