import numpy as np
import pytest
import torch

from alexnet_lab.data import fashion_mnist_files


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
    """Small tensors: several threads that wait for each other on a busy machine take a hundred times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
