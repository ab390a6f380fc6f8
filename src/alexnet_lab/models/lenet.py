"""LeNet as in "Dive into Deep Learning", the small network for comparison.

    layer   out    kernel      side       parameters
    conv1     6    5x5 pad 2   28                156   sigmoid
    pool1          2x2/2 mean  28 -> 14
    conv2    16    5x5         14 -> 10        2,416   sigmoid
    pool2          2x2/2 mean  10 -> 5      flat 400
    fc3     120                               48,120   sigmoid
    fc4      84                               10,164   sigmoid
    fc5      10                                  850
                                              61,706   416,520 MACs

Source: d2l-ai/d2l-zh, second edition, section 6.6.

Differences:
- From LeCun, Bottou, Bengio, Haffner 1998: 28x28 inputs padded instead of 32x32, sigmoids, plain mean pools, every map
  of conv2 reads all six of pool1, a linear last layer; Xavier-uniform weights with PyTorch's default biases.
- From the book: none at dropout 0 and with sigmoids, its own values.
"""

from torch import nn

from alexnet_lab.models.checks import check_common
from alexnet_lab.models.layers import output_side, row, sequence, xavier_uniform_
from alexnet_lab.models.switches import Activation, Norm, switches


def lenet(
    in_channels: int = 1,
    num_classes: int = 10,
    image_size: int = 28,
    dropout: float = 0.0,
    activation: Activation = "sigmoid",
    norm: Norm = "none",
) -> nn.Sequential:
    """The book's LeNet, float [N, C, S, S] -> logits float [N, num_classes].

    dropout: on the outputs of fc3 and fc4; the book has none. Raises UserError for values out of range.
    """
    check_common(in_channels, num_classes, image_size, 12, dropout)
    act, batch, lrn = switches(activation, norm)
    features = sequence(
        *row(1, nn.Conv2d(in_channels, 6, 5, padding=2), batch(6), act(), lrn(), nn.AvgPool2d(2)),
        *row(2, nn.Conv2d(6, 16, 5), batch(16), act(), lrn(), nn.AvgPool2d(2)),
    )
    flat = 16 * output_side(features, image_size) ** 2
    net = sequence(
        *features.named_children(),
        ("flatten", nn.Flatten()),
        *row(3, nn.Linear(flat, 120), act(), nn.Dropout(dropout)),
        *row(4, nn.Linear(120, 84), act(), nn.Dropout(dropout)),
        *row(5, nn.Linear(84, num_classes)),
    )
    return net.apply(xavier_uniform_)
