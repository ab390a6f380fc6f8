"""The data module of photographs as the configuration has it, for any folder; a store that is not in memory."""

import os
from pathlib import Path
from typing import Any

from _report import ROOT
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from alexnet_lab.data.module import ImageDataModule
from alexnet_lab.data.photographs import photographs

BATCH_SIZE = 128
IMAGE_SIZE = 224


def data_module(name: str, folder: Path, **changes: Any) -> ImageDataModule:
    """`conf/data/NAME.yaml` with images from `folder`, set up for training; `changes` are to its keys."""
    overrides = [f"data={name}", f"model.image_size={IMAGE_SIZE}", "channels_last=true"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("train", overrides)
    settings: Any = OmegaConf.to_container(config.data, resolve=True)
    del settings["_target_"]
    module = photographs(**settings | {"dir": str(folder), "batch_size": BATCH_SIZE} | changes)
    module.prepare_data()
    module.setup("fit")
    return module


def forget(store: Path) -> None:
    """Drops the store's files from the page cache, as far as no process has them mapped; needs no rights."""
    for path in store.rglob("*.*"):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)  # what is not on the disk yet is kept
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
