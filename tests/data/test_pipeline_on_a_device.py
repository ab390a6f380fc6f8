"""What the input pipeline asks of a device, which `meta` replaces: no transfers from or to the host, few kernels."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from alexnet_lab.data.augment import ten_views
from alexnet_lab.data.pipeline import ColourNoise, InputPipeline, MeanImage
from alexnet_lab.data.spec import Draws

DEVICE = torch.device("meta")
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
NUMBER = 64


class HostReads(TorchFunctionMode):
    """Counts the calls that read the host's memory, each of which would wait for a GPU."""

    count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        self.count += func in (torch.tensor, torch.as_tensor, Tensor.new_tensor)
        self.count += any(tensor.device.type == "cpu" for tensor in tensors)
        return func(*args, **(kwargs or {}))


class Work(TorchDispatchMode):
    """Counts what a device is asked to do.

    `kernels`: operations that are not views. `bytes`: what they read and write; of a tensor that repeats values, what
    is stored. `waits`: operations for which the host waits, because it must see values or makes a copy to it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kernels = self.bytes = 0
        self.waits: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        name = func.overloadpacket.__name__
        shows_values = name in ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal")
        shows_values |= name in ("index", "index_put_") and any(one.dtype == torch.bool for one in read[1:])
        if shows_values or (name == "_to_copy" and kwargs and torch.device(kwargs.get("device") or DEVICE) != DEVICE):
            self.waits.append(name)
            return 1.0 if name == "_local_scalar_dense" else torch.zeros(1, device="cpu")
        made = func(*args, **(kwargs or {}))
        written = [leaf for leaf in tree_leaves(made) if isinstance(leaf, Tensor)]
        if len({tensor.device for tensor in read + written}) > 1:
            self.waits.append(name)
        if not func.is_view and name not in ("_unsafe_view", "empty", "empty_like", "new_empty"):
            self.kernels += 1
            self.bytes += sum(stored_bytes(tensor) for tensor in written + read * (not name.startswith("new_")))
        return made


def stored_bytes(tensor: Tensor) -> int:
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def on_device(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=DEVICE)


def flips() -> Tensor:
    return on_device(NUMBER, dtype=torch.bool)


def noise() -> ColourNoise:
    return ColourNoise(torch.rand(3), torch.rand(3, 3), 1.1)


RECIPES = {
    "the 2012 source": (
        InputPipeline(224, MEAN, (1 / 255,), mean_image=MeanImage(torch.rand(3, 256, 256), False), noise=noise()),
        Draws(flip=flips(), colour=on_device(NUMBER, 3)),
    ),
    "Caffe": (
        InputPipeline(224, MEAN, (1 / 255,), mean_image=MeanImage(torch.rand(3, 256, 256), True)),
        Draws(corner=on_device(NUMBER, 2, dtype=torch.int64), flip=flips()),
    ),
    "one weird trick": (
        InputPipeline(224, MEAN, STD),
        Draws(box=on_device(NUMBER, 4, dtype=torch.int64), flip=flips(), jitter=on_device(NUMBER, 3)),
    ),
    "an article": (InputPipeline(227, (0.0,), (1.0,)), Draws(rotation=on_device(NUMBER), scaling=on_device(NUMBER))),
}


KERNELS_AND_KILOBYTES = {
    "the 2012 source": (8, 5127),  # the smallest number of bytes: 150 + 602
    "Caffe": (8, 8141),
    "one weird trick": (41, 31217),
    "an article": (16, 6444),
}
"""Kernels of a batch, kilobytes per image."""


def stored(number: int, size: int, channels: int = 3) -> Tensor:
    """uint8 [N, C, size, size] as the loader gathers it, channels_last."""
    return on_device(number, size, size, channels, dtype=torch.uint8).permute(0, 3, 1, 2)


@pytest.mark.parametrize("recipe", RECIPES)
def test_constants_are_copied_to_the_device_once(recipe: str) -> None:
    pipeline, draws = RECIPES[recipe]
    images = stored(NUMBER, 256 if draws.box is not None else 224)
    pipeline(images, draws)
    with HostReads() as reads, Work() as work:
        pipeline(images, draws)
    assert (reads.count, work.waits) == (0, [])


@pytest.mark.parametrize("recipe", RECIPES)
def test_kernels_and_bytes_of_a_batch(recipe: str) -> None:
    pipeline, draws = RECIPES[recipe]
    images = stored(NUMBER, 256 if draws.box is not None else 224)
    pipeline(images, draws)
    with Work() as work:
        pipeline(images, draws)
    assert (work.kernels, round(work.bytes / NUMBER / 1000)) == KERNELS_AND_KILOBYTES[recipe]


def test_small_images_are_enlarged_by_three_kernels() -> None:
    pipeline, images = InputPipeline(224, (0.0,), (1.0,)), stored(NUMBER, 28, 1)
    pipeline(images)
    with Work() as work:
        pipeline(images)
    assert (work.kernels, work.waits) == (3, [])


def test_corners_of_ten_views_are_copied_to_the_device_once() -> None:
    images = stored(4, 256)
    ten_views(images, 224)
    with HostReads() as reads, Work() as work:
        ten_views(images, 224)
    assert (reads.count, work.waits) == (0, [])


@pytest.mark.parametrize(
    ("mistake", "name"),
    [
        (lambda images: images.sum().item(), "_local_scalar_dense"),
        (lambda images: bool(images.sum() > 0), "_local_scalar_dense"),
        (lambda images: images.cpu(), "_to_copy"),
        (lambda images: images.float().to("cpu", torch.float64), "_to_copy"),
        (lambda images: images.nonzero(), "nonzero"),
        (lambda images: images[images > 0], "index"),
        (lambda images: images.masked_select(images > 0), "masked_select"),
        (lambda images: images.float().sub_(torch.tensor([0.5], device=DEVICE)), ""),
        (lambda images: images.float() - torch.ones(3, 1, 1).to(DEVICE), "_to_copy"),
        (lambda images: images.copy_(torch.ones(3, 1, 1)), "copy_"),
    ],
)
def test_each_kind_of_wait_is_counted(mistake: Callable[[Tensor], object], name: str) -> None:
    images = stored(4, 8)
    with HostReads() as reads, Work() as work:
        mistake(images)
    assert work.waits == [name] if name else reads.count == 1
