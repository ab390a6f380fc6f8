"""Caffe's AlexNet: the paper's order of layers, with a normalisation that ignores the towers.

    layer   out    kernel      side     towers   parameters
    conv1    96    11x11/4     227 -> 55             34,944   act, LRN over all 96
    pool1           3x3/2       55 -> 27
    conv2   256    5x5 pad 2   27       own         307,456   act, LRN over all 256
    pool2           3x3/2       27 -> 13
    conv3   384    3x3 pad 1   13       both        885,120   act
    conv4   384    3x3 pad 1   13       own         663,936   act
    conv5   256    3x3 pad 1   13       own         442,624   act
    pool5           3x3/2       13 -> 6             flat 9216
    fc6    4096                         both     37,752,832   act, dropout
    fc7    4096                         both     16,781,312   act, dropout
    fc8    1000                         both      4,097,000
                                                 60,965,224   724,406,816 MACs

Source: BVLC/caffe, models/bvlc_alexnet.

Differences:
- From the paper, and from `alexnet_original`: LRN's k = 1 instead of 2; the normalisation ignores the towers; fc6 and
  fc7 start from N(0, 0.005); the biases that start at 1 there start at 0.1.
- From Caffe: as those of `caffenet`; nothing differs at Caffe's 227.
"""

from typing import Literal

from torch import nn

from alexnet_lab.models.alexnet_original import BIAS_ONE, alexnet_original
from alexnet_lab.models.caffenet import NARROW
from alexnet_lab.models.layers import gaussian_
from alexnet_lab.models.lrn import LocalResponseNorm
from alexnet_lab.models.switches import Activation, Norm


def bvlc_alexnet(
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
    """Caffe's replication of the paper, float [N, C, S, S] -> logits float [N, num_classes].

    dropout: on the outputs of fc6 and fc7. lrn_alpha: divided by lrn_size, as Caffe does. The switches are those of
    `alexnet_original`. Raises UserError for values out of range.
    """
    net = alexnet_original(
        in_channels,
        num_classes,
        image_size,
        dropout,
        norm,
        lrn_size,
        lrn_alpha,
        lrn_beta,
        lrn_k,
        overlapping_pooling,
        activation,
        towers,
    )
    for name, layer in net.named_children():
        gaussian_(layer, std=0.005 if name in NARROW else 0.01, bias=0.1 * (name in BIAS_ONE))
        if isinstance(layer, LocalResponseNorm):
            layer.groups = 1
    return net
