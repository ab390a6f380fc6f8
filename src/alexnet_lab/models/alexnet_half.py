"""One tower of AlexNet in two sizes, as the Keras article builds it.

    layer   out    kernel      side         parameters
    pad       3                224 -> 227   zeros, 1 left and top, 2 right and bottom
    conv1    48    11x11/4     227 -> 55        17,472   ReLU
    pool1           3x3/2       55 -> 27
    conv2   128    5x5 pad 2   27              153,728   ReLU
    pool2           3x3/2       27 -> 13
    conv3   192    3x3 pad 1   13              221,376   ReLU
    conv4   192    3x3 pad 1   13              331,968   ReLU
    conv5   128    3x3 pad 1   13              221,312   ReLU
    pool5           3x3/2       13 -> 6        flat 4608
                                            v1           v2
    fc6    2048 / 1024                       9,439,232   4,719,616   dropout before, ReLU
    fc7    2048 / 128                        4,196,352     131,200   dropout before, ReLU
    fc8    1000                              2,049,000     129,000
                                            16,630,440   5,925,672
    MACs                                   311,191,824   300,490,000

Source: the Keras code of article 2 (001) of the collection behind this project. With its 5 classes the versions have
14,591,685 and 5,797,317 parameters.

Differences:
- From the paper: the widths of one tower and in v2 still smaller linear layers, no LRN, Glorot-uniform weights and
  biases of 0 (Keras's defaults), dropout of 0.2 on the inputs of fc6 and fc7.
- From the article: none in the function; its comments on v2's widths are wrong.
"""

from torch import nn

from alexnet_lab.models.checks import check_common
from alexnet_lab.models.layers import StridedConv2d, glorot_uniform_, max_pool, output_side, overhang_pad, row, sequence
from alexnet_lab.models.switches import Activation, Norm, Switches, switches


def alexnet_half_v1(
    in_channels: int = 3,
    num_classes: int = 1000,
    image_size: int = 224,
    dropout: float = 0.2,
    activation: Activation = "relu",
    norm: Norm = "none",
) -> nn.Sequential:
    """The article's first version, float [N, C, S, S] -> logits float [N, num_classes].

    dropout: on the inputs of fc6 and fc7. Raises UserError for values out of range.
    """
    return _half(in_channels, num_classes, image_size, dropout, switches(activation, norm), fc6=2048, fc7=2048)


def alexnet_half_v2(
    in_channels: int = 3,
    num_classes: int = 1000,
    image_size: int = 224,
    dropout: float = 0.2,
    activation: Activation = "relu",
    norm: Norm = "none",
) -> nn.Sequential:
    """The article's second version, with smaller fc6 and fc7; otherwise as `alexnet_half_v1`."""
    return _half(in_channels, num_classes, image_size, dropout, switches(activation, norm), fc6=1024, fc7=128)


def _half(
    in_channels: int, num_classes: int, image_size: int, dropout: float, chosen: Switches, fc6: int, fc7: int
) -> nn.Sequential:
    check_common(in_channels, num_classes, image_size, 64, dropout)
    act, batch, lrn = chosen
    features = sequence(
        ("pad", overhang_pad(image_size, centred=True)),
        *row(1, StridedConv2d(in_channels, 48, 11, stride=4), batch(48), act(), lrn(), max_pool()),
        *row(2, nn.Conv2d(48, 128, 5, padding=2), batch(128), act(), lrn(), max_pool()),
        *row(3, nn.Conv2d(128, 192, 3, padding=1), batch(192), act()),
        *row(4, nn.Conv2d(192, 192, 3, padding=1), batch(192), act()),
        *row(5, nn.Conv2d(192, 128, 3, padding=1), batch(128), act(), max_pool()),
    )
    flat = 128 * output_side(features, image_size) ** 2
    net = sequence(
        *features.named_children(),
        ("flatten", nn.Flatten()),
        *row(6, nn.Dropout(dropout), nn.Linear(flat, fc6), act()),
        *row(7, nn.Dropout(dropout), nn.Linear(fc6, fc7), act()),
        *row(8, nn.Linear(fc7, num_classes)),
    )
    return net.apply(glorot_uniform_)
