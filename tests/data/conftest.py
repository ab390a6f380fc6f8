from pathlib import Path

import numpy as np
import pytest
import torch
from photographs_for_tests import write_tree

from alexnet_lab.data import fashion_mnist_files
from alexnet_lab.data.store.prepare import prepare


@pytest.fixture(scope="session")
def system_folder():
    folder = fashion_mnist_files.SYSTEM_FOLDER
    if not (folder / "train-images-idx3-ubyte.gz").exists():
        pytest.skip(f"needs Debian's package {fashion_mnist_files.PACKAGE} in {folder}")
    return folder


@pytest.fixture(scope="session")
def real_images(system_folder) -> np.ndarray:
    """uint8 [100, 1, 28, 28], the first test images."""
    images, _ = fashion_mnist_files.load(system_folder, "t10k")
    return images[:100, None].copy()


@pytest.fixture(autouse=True)
def one_thread():
    """One thread: with small tensors, several threads on a busy machine take a hundred times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def image_tree(tmp_path_factory) -> Path:
    """A folder of JPEGs, `train/<wnid>/*` and `val/<wnid>/*`."""
    folder = tmp_path_factory.mktemp("images")
    write_tree(folder)
    return folder


@pytest.fixture(scope="session")
def stores(image_tree, tmp_path_factory) -> dict[str, Path]:
    """Stores of the images of `image_tree`, by format."""
    folder = tmp_path_factory.mktemp("stores")
    for form in ("uint8", "jpeg"):
        prepare(image_tree, folder / form, name="imagenette", format=form, workers=1)
    return {form: folder / form for form in ("uint8", "jpeg")}
