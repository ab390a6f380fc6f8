"""AlexNet as the paper describes it: two towers, local response normalisation, overlapping pools.

    layer   out    kernel      side     towers   parameters
    pad       3                224 -> 227   zeros right and bottom; 227 is taken as is
    conv1    96    11x11/4     227 -> 55             34,944   act, LRN
    pool1           3x3/2       55 -> 27
    conv2   256    5x5 pad 2   27       own         307,456   act, LRN
    pool2           3x3/2       27 -> 13
    conv3   384    3x3 pad 1   13       both        885,120   act
    conv4   384    3x3 pad 1   13       own         663,936   act
    conv5   256    3x3 pad 1   13       own         442,624   act
    pool5           3x3/2       13 -> 6             flat 9216
    fc6    4096                         both     37,752,832   act, dropout
    fc7    4096                         both     16,781,312   act, dropout
    fc8    1000                         both      4,097,000
                                                 60,965,224   724,406,816 MACs

Source: Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural networks", NIPS 2012,
sections 3 to 5; computerhistory/AlexNet-Source-Code, layers-145 and the ablations 145-half, 147 and 148.

Differences:
- From the paper: the two towers are grouped convolutions on one device, which is the same function. 224 pixels do not
  make 55 outputs; the 2012 code rounds up and reads the 3 overhanging pixels as zero, which is what `pad` does.
- From the paper's formula: LRN's alpha is the 2012 code's, 1e-4 divided by the size (lrn_alpha=5e-4 is the formula's).
- From the 2012 code: there LRN1 acts before the ReLU, an unpublished spatial normalisation follows the second LRN and
  conv3-5 start from N(0, 0.03). Its pools round up as well: the same 27, 13, 6 with the 3x3 pools at 224 and 227.
"""

from functools import partial
from typing import Literal

from torch import nn

from alexnet_lab.models.checks import check_choice, check_common, check_lrn
from alexnet_lab.models.layers import (
    GroupedConv2d,
    StridedConv2d,
    gaussian_,
    max_pool,
    output_side,
    overhang_pad,
    row,
    sequence,
)
from alexnet_lab.models.lrn import LocalResponseNorm
from alexnet_lab.models.switches import Activation, Norm, switches

WIDTHS = {2: (96, 256, 384, 384, 256), 1: (48, 128, 192, 192, 256)}
"""Outputs of conv1-5 by number of towers. The single tower keeps 256 in conv5, so the last layers keep their size."""
BIAS_ONE = {"conv2", "conv4", "conv5", "fc6", "fc7"}
"""Start with bias 1, which feeds the ReLUs positive inputs at first (paper, section 5)."""


def alexnet_original(
    in_channels: int = 3,
    num_classes: int = 1000,
    image_size: int = 224,
    dropout: float = 0.5,
    norm: Norm = "lrn",
    lrn_size: int = 5,
    lrn_alpha: float = 1e-4,
    lrn_beta: float = 0.75,
    lrn_k: float = 2.0,
    overlapping_pooling: bool = True,
    activation: Activation = "relu",
    towers: Literal[1, 2] = 2,
) -> nn.Sequential:
    """The paper's network and the switches of its ablations, float [N, C, S, S] -> logits float [N, num_classes].

    dropout: on the outputs of fc6 and fc7. lrn_alpha: divided by lrn_size (see `LocalResponseNorm`).
    overlapping_pooling: 3x3 pools with stride 2; False is 2x2 (log 147). norm: none leaves LRN out (log 148).
    towers: 1 is a single tower of half the width (log 145-half). Raises UserError for values out of range.
    """
    check_common(in_channels, num_classes, image_size, 64 if overlapping_pooling else 36, dropout)
    check_lrn(lrn_size, lrn_alpha, lrn_beta, lrn_k)
    check_choice("towers", towers, WIDTHS)
    c1, c2, c3, c4, c5 = WIDTHS[towers]
    pool = partial(max_pool, overlapping_pooling)

    def response() -> nn.Module:
        return LocalResponseNorm(lrn_size, lrn_alpha, lrn_beta, lrn_k, groups=towers)

    act, batch, lrn = switches(activation, norm, response)
    features = sequence(
        ("pad", overhang_pad(image_size)),
        *row(1, StridedConv2d(in_channels, c1, 11, stride=4), batch(c1), act(), lrn(), pool()),
        *row(2, GroupedConv2d(c1, c2, 5, padding=2, groups=towers), batch(c2), act(), lrn(), pool()),
        *row(3, nn.Conv2d(c2, c3, 3, padding=1), batch(c3), act()),
        *row(4, GroupedConv2d(c3, c4, 3, padding=1, groups=towers), batch(c4), act()),
        *row(5, GroupedConv2d(c4, c5, 3, padding=1, groups=towers), batch(c5), act(), pool()),
    )
    flat = c5 * output_side(features, image_size) ** 2
    net = sequence(
        *features.named_children(),
        ("flatten", nn.Flatten()),
        *row(6, nn.Linear(flat, 4096), act(), nn.Dropout(dropout)),
        *row(7, nn.Linear(4096, 4096), act(), nn.Dropout(dropout)),
        *row(8, nn.Linear(4096, num_classes)),
    )
    for name, layer in net.named_children():
        gaussian_(layer, std=0.01, bias=float(name in BIAS_ONE))
    return net
