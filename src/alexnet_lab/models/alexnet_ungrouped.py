"""AlexNet without towers and normalisation, as most tutorials build it.

    layer   out    kernel      side         parameters
    conv1    96    11x11/4     227 -> 55        34,944   ReLU
    pool1           3x3/2       55 -> 27
    conv2   256    5x5 pad 2   27              614,656   ReLU
    pool2           3x3/2       27 -> 13
    conv3   384    3x3 pad 1   13              885,120   ReLU
    conv4   384    3x3 pad 1   13            1,327,488   ReLU
    conv5   256    3x3 pad 1   13              884,992   ReLU
    pool5           3x3/2       13 -> 6        flat 9216
    fc6    4096                             37,752,832   dropout before, ReLU
    fc7    4096                             16,781,312   dropout before, ReLU
    fc8    1000                              4,097,000
                                            62,378,344   1,135,256,096 MACs

Source: the code of article 1 (000) of the collection behind this project.

Differences:
- From the paper: every convolution reads all channels, no LRN, PyTorch's default initialisation, dropout on the inputs
  of fc6 and fc7 instead of their outputs.
- From the article's code: it stops with an error at 224, which is zero-padded to 227 here as in `alexnet_original`.
- From the article's text: it differs from its code. It has a 2x2 pool with stride 2 after every convolution, as
  pooling=every_conv: 55-27-13-6-3-1, flat 256, 25,678,184 parameters, 780,493,344 MACs.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

from torch import nn

from alexnet_lab.models.checks import check_choice, check_common
from alexnet_lab.models.layers import StridedConv2d, max_pool, output_side, overhang_pad, row, sequence
from alexnet_lab.models.switches import Activation, Norm, switches
from alexnet_lab.models.table import Remark

POOLS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module]]] = {
    "overlapping": (max_pool, nn.Identity),
    "every_conv": (partial(max_pool, overlapping=False), partial(max_pool, overlapping=False)),
}
"""The pools after conv1, 2 and 5, and those after conv3 and 4."""
REMARK = Remark(
    "The article's text and its code differ: the text has a 2x2 pool after every convolution "
    "(model.pooling=every_conv), the code three 3x3 pools (model.pooling=overlapping).",
    "pooling",
    ("overlapping", "every_conv"),
)
SMALLEST = {"overlapping": 64, "every_conv": 132}


def alexnet_ungrouped(
    in_channels: int = 3,
    num_classes: int = 1000,
    image_size: int = 227,
    dropout: float = 0.5,
    activation: Activation = "relu",
    norm: Norm = "none",
    pooling: Literal["overlapping", "every_conv"] = "overlapping",
) -> nn.Sequential:
    """The network without towers, float [N, C, S, S] -> logits float [N, num_classes].

    dropout: on the inputs of fc6 and fc7. pooling: the three pools of the article's code, or those of its text, a 2x2
    pool with stride 2 after every convolution. Raises UserError for values out of range.
    """
    check_choice("pooling", pooling, POOLS)
    check_common(in_channels, num_classes, image_size, SMALLEST[pooling], dropout)
    act, batch, lrn = switches(activation, norm)
    pool, extra_pool = POOLS[pooling]
    features = sequence(
        ("pad", overhang_pad(image_size)),
        *row(1, StridedConv2d(in_channels, 96, 11, stride=4), batch(96), act(), lrn(), pool()),
        *row(2, nn.Conv2d(96, 256, 5, padding=2), batch(256), act(), lrn(), pool()),
        *row(3, nn.Conv2d(256, 384, 3, padding=1), batch(384), act(), extra_pool()),
        *row(4, nn.Conv2d(384, 384, 3, padding=1), batch(384), act(), extra_pool()),
        *row(5, nn.Conv2d(384, 256, 3, padding=1), batch(256), act(), pool()),
    )
    flat = 256 * output_side(features, image_size) ** 2
    return sequence(
        *features.named_children(),
        ("flatten", nn.Flatten()),
        *row(6, nn.Dropout(dropout), nn.Linear(flat, 4096), act()),
        *row(7, nn.Dropout(dropout), nn.Linear(4096, 4096), act()),
        *row(8, nn.Linear(4096, num_classes)),
    )
