"""The input pipeline does not wait for the host once its constants are on the device; `meta` replaces a GPU."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from alexnet_lab.data.augment import ten_views
from alexnet_lab.data.pipeline import ColourNoise, InputPipeline, MeanImage
from alexnet_lab.data.spec import Draws

DEVICE = torch.device("meta")
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)


class HostReads(TorchFunctionMode):
    """Counts the calls that read the host's memory, each of which would wait for a GPU."""

    count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        self.count += func in (torch.tensor, torch.as_tensor, Tensor.new_tensor)
        self.count += any(tensor.device.type == "cpu" for tensor in tensors)
        return func(*args, **(kwargs or {}))


def on_device(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=DEVICE)


def flips() -> Tensor:
    return on_device(4, dtype=torch.bool)


def noise() -> ColourNoise:
    return ColourNoise(torch.rand(3), torch.rand(3, 3), 1.1)


RECIPES = {
    "the 2012 source": (
        InputPipeline(224, MEAN, (1 / 255,), mean_image=MeanImage(torch.rand(3, 256, 256), False), noise=noise()),
        Draws(flip=flips(), colour=on_device(4, 3)),
    ),
    "Caffe": (
        InputPipeline(224, MEAN, (1 / 255,), mean_image=MeanImage(torch.rand(3, 256, 256), True)),
        Draws(corner=on_device(4, 2, dtype=torch.int64), flip=flips()),
    ),
    "one weird trick": (
        InputPipeline(224, MEAN, STD),
        Draws(box=on_device(4, 4, dtype=torch.int64), flip=flips(), jitter=on_device(4, 3)),
    ),
    "an article": (InputPipeline(227, (0.0,), (1.0,)), Draws(rotation=on_device(4), scaling=on_device(4))),
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_constants_are_copied_to_the_device_once(recipe: str) -> None:
    pipeline, draws = RECIPES[recipe]
    size = 256 if draws.box is not None else 224
    images = on_device(4, 3, size, size, dtype=torch.uint8)
    pipeline(images, draws)
    with HostReads() as reads:
        pipeline(images, draws)
    assert reads.count == 0


def test_corners_of_ten_views_are_copied_to_the_device_once() -> None:
    images = on_device(4, 3, 256, 256, dtype=torch.uint8)
    ten_views(images, 224)
    with HostReads() as reads:
        ten_views(images, 224)
    assert reads.count == 0
