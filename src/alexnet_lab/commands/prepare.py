"""Downloads, converts and checks a dataset, and prints its contents."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from alexnet_lab.command_line import command, override
from alexnet_lab.config.build import build, check
from alexnet_lab.config.values import check_values
from alexnet_lab.data.dataset import SplitName, suggested_val_size
from alexnet_lab.data.module import ImageDataModule
from alexnet_lab.data.photo_sources import open_source
from alexnet_lab.data.store.format import Format
from alexnet_lab.data.store.prepare import prepare as make_store
from alexnet_lab.data.store.progress import OnError
from alexnet_lab.data.store.verify import verify
from alexnet_lab.data.stream.layout import is_stream
from alexnet_lab.data.stream.writing import check_stream, write_stream
from alexnet_lab.errors import UserError

PHOTOGRAPHS = "alexnet_lab.data.photographs.photographs"

KINDS = {
    "source": str | list[str] | None,
    "format": Format,
    "on_error": OnError,
    "workers": int | None,
    "verify": bool,
    "stream": str | None,
}
"""The types of the command's own options."""

log = logging.getLogger(__name__)

SPLITS: tuple[SplitName, ...] = ("train", "val", "test")


def prepare(config: DictConfig) -> None:
    """Download the dataset of `config.data` if necessary, open every split and print its contents.

    `config.source` is first converted into a store. `config.verify` compares the store with its checksums, and
    `config.stream` writes it as a stream.

    Raises:
        UserError: a wrong key or value, or the files are damaged or not available.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options: dict[str, Any] = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    settings = options["data"]
    check(settings, "data")  # before hours of work
    _store({key: value for key, value in options.items() if key not in ("data", "model")}, settings)
    if settings["_target_"] == PHOTOGRAPHS:
        settings |= _settings_from_images(settings)
    data: ImageDataModule = build(settings, "data")
    data.prepare_data()
    for stage in ("fit", "test"):
        data.setup(stage)
    table = Table(title=f"dataset {data.spec.name}", show_header=False, title_justify="left")
    for label, text in _rows(data):
        table.add_row(label, text)
    console = Console()
    console.print(table)
    for line in data.dataset.places():
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _store(options: dict[str, Any], data: dict[str, Any]) -> None:
    """Make, verify or stream the store of photographs that `data` names, as the options require."""
    check_values(options, KINDS)
    source, verifies, stream = options["source"], options["verify"], options["stream"]
    if source is None and not verifies and stream is None:
        return
    if data["_target_"] != PHOTOGRAPHS:
        raise UserError(
            f"data={data['name']} has no store: source, verify and stream are for imagenet, imagenette, image_folder"
        )
    if is_stream(data["dir"]):
        raise UserError(f"data.dir={data['dir']} is a stream; a store is made and verified in another folder")
    folder = Path(data["dir"])
    if source is not None:
        sources = [Path(str(one)) for one in (source if isinstance(source, list) else [source])]
        if source in ("", []):
            raise UserError("source is empty; name a folder, or a tar or zip archive: source=FOLDER_OR_ARCHIVE")
        choices = {key: options[key] for key in ("format", "on_error", "workers")}
        if stream is not None:
            check_stream(stream)  # before hours of work
        make_store(sources, folder, name=data["name"], num_classes=data["num_classes"], **choices)
    if verifies:
        verify(folder, data["name"], options["workers"])
        log.info("%s: all checksums match", folder)
    if stream is not None:
        write_stream(folder, str(stream), data["name"])


def _settings_from_images(data: dict[str, Any]) -> dict[str, int]:
    """Settings that training needs and `data` leaves open, derived from the images; logged as a command line."""
    source = open_source(data["dir"], data["name"])
    found = {}
    if data["num_classes"] is None:
        found["num_classes"] = len(source.classes)
    if data["val_size"] == 0 and "val" not in source.counts:
        found["val_size"] = suggested_val_size(source.counts["train"], len(source.classes))
    if found:
        choices = {"data": data["name"], "data.dir": data["dir"], **{f"data.{key}": found[key] for key in found}}
        log.info("to train on it: %s", command("train", *(override(*choice) for choice in choices.items())))
    return found


def _rows(data: ImageDataModule) -> Iterable[tuple[str, str]]:
    for name in SPLITS:
        split = data.dataset.split(name)
        shape = " x ".join(map(str, split.images.shape[1:]))
        yield name, f"{len(split.rows):,} images, stored as {shape} {split.images.dtype}"
    yield "classes", f"{data.spec.num_classes}: {', '.join(data.spec.classes)}"
