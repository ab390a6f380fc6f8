"""The AlexNet of "Dive into Deep Learning", made for Fashion-MNIST enlarged to 224x224.

    layer   out    kernel            side         parameters
    conv1    96    11x11/4 pad 1     224 -> 54        11,712   ReLU
    pool1           3x3/2             54 -> 26
    conv2   256    5x5 pad 2         26              614,656   ReLU
    pool2           3x3/2             26 -> 12
    conv3   384    3x3 pad 1         12              885,120   ReLU
    conv4   384    3x3 pad 1         12            1,327,488   ReLU
    conv5   256    3x3 pad 1         12              884,992   ReLU
    pool5           3x3/2             12 -> 5        flat 6400
    fc6    4096                                   26,218,496   ReLU, dropout
    fc7    4096                                   16,781,312   ReLU, dropout
    fc8      10                                       40,970
                                                  46,764,746   938,146,176 MACs

Source: d2l-ai/d2l-zh, second edition, section 7.1.

Differences:
- From the paper: one channel and ten classes, padding 1 in conv1 and so smaller maps, no towers, no LRN, Xavier-uniform
  weights with PyTorch's default biases.
- From the book's English edition: its call that initialises acts on layers without shapes yet and has no effect.
"""

from torch import nn

from alexnet_lab.models.checks import check_common
from alexnet_lab.models.layers import StridedConv2d, max_pool, output_side, row, sequence, xavier_uniform_
from alexnet_lab.models.switches import Activation, Norm, switches


def alexnet_d2l(
    in_channels: int = 1,
    num_classes: int = 10,
    image_size: int = 224,
    dropout: float = 0.5,
    activation: Activation = "relu",
    norm: Norm = "none",
) -> nn.Sequential:
    """The book's network, float [N, C, S, S] -> logits float [N, num_classes].

    dropout: on the outputs of fc6 and fc7. Raises UserError for values out of range.
    """
    check_common(in_channels, num_classes, image_size, 65, dropout)
    act, batch, lrn = switches(activation, norm)
    features = sequence(
        *row(1, StridedConv2d(in_channels, 96, 11, stride=4, padding=1), batch(96), act(), lrn(), max_pool()),
        *row(2, nn.Conv2d(96, 256, 5, padding=2), batch(256), act(), lrn(), max_pool()),
        *row(3, nn.Conv2d(256, 384, 3, padding=1), batch(384), act()),
        *row(4, nn.Conv2d(384, 384, 3, padding=1), batch(384), act()),
        *row(5, nn.Conv2d(384, 256, 3, padding=1), batch(256), act(), max_pool()),
    )
    flat = 256 * output_side(features, image_size) ** 2
    net = sequence(
        *features.named_children(),
        ("flatten", nn.Flatten()),
        *row(6, nn.Linear(flat, 4096), act(), nn.Dropout(dropout)),
        *row(7, nn.Linear(4096, 4096), act(), nn.Dropout(dropout)),
        *row(8, nn.Linear(4096, num_classes)),
    )
    return net.apply(xavier_uniform_)
