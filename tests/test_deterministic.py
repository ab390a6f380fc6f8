"""No network, input pipeline, loss or metric calls an operation that differs from run to run on a GPU.

`trainer.deterministic=true` makes such an operation an error. The list is that of `torch.use_deterministic_algorithms`.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from tests.data.test_pipeline_on_a_device import NUMBER, RECIPES, stored
from tests.test_conf import SMALL, SMALL_ALEXNET, names
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from alexnet_lab.metrics import ClassificationMetrics, sum_of_losses

REFUSED = {
    *("avg_pool3d_backward", "_adaptive_avg_pool2d_backward", "_adaptive_avg_pool3d_backward"),
    *("adaptive_max_pool2d_backward", "adaptive_max_pool3d_backward"),
    *("fractional_max_pool2d_backward", "fractional_max_pool3d_backward", "max_unpool2d", "max_unpool3d"),
    *(f"upsample_{kind}_backward" for kind in ("linear1d", "bilinear2d", "bicubic2d", "trilinear3d")),
    *("_upsample_bilinear2d_aa_backward", "_upsample_bicubic2d_aa_backward"),
    *(f"reflection_pad{dimensions}d_backward" for dimensions in (1, 2, 3)),
    *("nll_loss2d_forward", "nll_loss2d_backward", "_ctc_loss", "_ctc_loss_backward", "_embedding_bag"),
    *("put", "put_", "histc", "bincount", "median", "kthvalue", "grid_sampler_2d_backward", "grid_sampler_3d_backward"),
    *("scatter_reduce", "scatter_reduce_"),
}
"""As dispatched: PyTorch has no deterministic kernel for a GPU."""


class Operations(TorchDispatchMode):
    """The names of the operations, those of the backward pass included."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def step(net: nn.Module, images: Tensor) -> None:
    """A training step up to the gradients, with the metrics."""
    labels = torch.zeros(len(images), dtype=torch.int64)
    logits = net(images)
    loss = sum_of_losses(logits, labels)
    ClassificationMetrics().update(loss.detach(), logits.detach(), labels)
    loss.backward()


@pytest.fixture
def _deterministic() -> Any:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("_deterministic")
@pytest.mark.parametrize("model", names("model"))
def test_network_loss_and_metrics_are_deterministic(model: str, settings: Callable[..., dict[str, Any]]) -> None:
    side = SMALL.get(model, SMALL_ALEXNET)
    node = settings(f"model={model}", "data=synthetic", f"model.image_size={side}")["model"]
    net = instantiate(node).to(memory_format=torch.channels_last)
    with Operations() as found:
        step(net, torch.rand(2, node["in_channels"], side, side))
    assert {"convolution_backward", "nll_loss_backward"} <= found.names, "the backward pass is seen, too"
    assert not found.names & REFUSED


@pytest.mark.usefixtures("_deterministic")
@pytest.mark.parametrize("recipe", RECIPES)
def test_input_pipeline_is_deterministic(recipe: str) -> None:
    pipeline, draws = RECIPES[recipe]
    images = stored(NUMBER, 256 if draws.box is not None else 224)
    with Operations() as found:
        pipeline(images, draws)
    assert found.names
    assert not found.names & REFUSED


@pytest.mark.parametrize(
    "layer",
    [
        nn.AdaptiveAvgPool2d(6),
        nn.AdaptiveMaxPool2d(6),
        nn.Upsample(size=9, mode="bilinear"),
        nn.ReflectionPad2d(1),
        nn.FractionalMaxPool2d(2, output_size=6),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_new_network_with_such_a_layer_would_be_found(layer: nn.Module) -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), layer, nn.Flatten(), nn.LazyLinear(10))
    with Operations() as found:
        step(net, torch.rand(2, 1, 16, 16))
    assert found.names & REFUSED
