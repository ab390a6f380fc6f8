"""The configured data module of photographs for any folder; a store outside of memory."""

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
    """`conf/data/NAME.yaml` with images from `folder`, set up for training; `changes` override its keys."""
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
    """Drops the store's files from the page cache, unless a process has mapped them; needs no special rights."""
    for path in store.rglob("*.*"):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)  # unwritten pages are kept
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
