"""CaffeNet, Caffe's reference network: AlexNet's shapes with the pools in front of the normalisation.

    layer   out    kernel      side     towers   parameters
    conv1    96    11x11/4     227 -> 55             34,944   act
    pool1           3x3/2       55 -> 27                      LRN over all 96
    conv2   256    5x5 pad 2   27       own         307,456   act
    pool2           3x3/2       27 -> 13                      LRN over all 256
    conv3   384    3x3 pad 1   13       both        885,120   act
    conv4   384    3x3 pad 1   13       own         663,936   act
    conv5   256    3x3 pad 1   13       own         442,624   act
    pool5           3x3/2       13 -> 6             flat 9216
    fc6    4096                         both     37,752,832   act, dropout
    fc7    4096                         both     16,781,312   act, dropout
    fc8    1000                         both      4,097,000
                                                 60,965,224   724,406,816 MACs

Source: BVLC/caffe, models/bvlc_reference_caffenet.

Differences:
- From the paper: ReLU, pool, LRN instead of ReLU, LRN, pool; k = 1 instead of 2; the normalisation ignores the
  towers; fc6 and fc7 start from N(0, 0.005). Caffe's other network, `bvlc_alexnet`, keeps the paper's order.
- From Caffe: sides that the stride of conv1 does not divide are zero-padded, 224 to 227 (Caffe drops the rest there and
  rounds its pools up); nothing differs at Caffe's 227.
"""

from functools import partial
from typing import Literal

from torch import nn

from alexnet_lab.models.alexnet_original import BIAS_ONE, WIDTHS
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

NARROW = {"fc6", "fc7"}
"""Start from N(0, 0.005), the others from N(0, 0.01)."""


def caffenet(
    in_channels: int = 3,
    num_classes: int = 1000,
    image_size: int = 227,
    dropout: float = 0.5,
    norm: Norm = "lrn",
    lrn_size: int = 5,
    lrn_alpha: float = 1e-4,
    lrn_beta: float = 0.75,
    lrn_k: float = 1.0,
    overlapping_pooling: bool = True,
    activation: Activation = "relu",
    towers: Literal[1, 2] = 2,
) -> nn.Sequential:
    """Caffe's network, float [N, C, S, S] -> logits float [N, num_classes].

    dropout: on the outputs of fc6 and fc7. lrn_alpha: divided by lrn_size, as Caffe does. The switches are those of
    `alexnet_original`. Raises UserError for values out of range.
    """
    check_common(in_channels, num_classes, image_size, 64 if overlapping_pooling else 36, dropout)
    check_lrn(lrn_size, lrn_alpha, lrn_beta, lrn_k)
    check_choice("towers", towers, WIDTHS)
    c1, c2, c3, c4, c5 = WIDTHS[towers]
    pool = partial(max_pool, overlapping_pooling)

    def response() -> nn.Module:
        return LocalResponseNorm(lrn_size, lrn_alpha, lrn_beta, lrn_k)

    act, batch, lrn = switches(activation, norm, response)
    features = sequence(
        ("pad", overhang_pad(image_size)),
        *row(1, StridedConv2d(in_channels, c1, 11, stride=4), batch(c1), act(), pool(), lrn()),
        *row(2, GroupedConv2d(c1, c2, 5, padding=2, groups=towers), batch(c2), act(), pool(), lrn()),
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
        gaussian_(layer, std=0.005 if name in NARROW else 0.01, bias=float(name in BIAS_ONE))
    return net
