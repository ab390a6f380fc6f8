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
- From the article: its text has a 2x2 pool after every convolution, its code the pools above; its code stops with an
  error at 224, which is zero-padded to 227 here as in `alexnet_original`.
"""

from torch import nn

from alexnet_lab.models.checks import check_common
from alexnet_lab.models.layers import StridedConv2d, max_pool, output_side, overhang_pad, row, sequence


def alexnet_ungrouped(
    in_channels: int = 3, num_classes: int = 1000, image_size: int = 227, dropout: float = 0.5
) -> nn.Sequential:
    """The network without towers, float [N, C, S, S] -> logits float [N, num_classes].

    dropout: on the inputs of fc6 and fc7. Raises UserError for values out of range.
    """
    check_common(in_channels, num_classes, image_size, 64, dropout)
    features = sequence(
        ("pad", overhang_pad(image_size)),
        *row(1, StridedConv2d(in_channels, 96, 11, stride=4), nn.ReLU(inplace=True), max_pool()),
        *row(2, nn.Conv2d(96, 256, 5, padding=2), nn.ReLU(inplace=True), max_pool()),
        *row(3, nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(inplace=True)),
        *row(4, nn.Conv2d(384, 384, 3, padding=1), nn.ReLU(inplace=True)),
        *row(5, nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(inplace=True), max_pool()),
    )
    flat = 256 * output_side(features, image_size) ** 2
    return sequence(
        *features.named_children(),
        ("flatten", nn.Flatten()),
        *row(6, nn.Dropout(dropout), nn.Linear(flat, 4096), nn.ReLU(inplace=True)),
        *row(7, nn.Dropout(dropout), nn.Linear(4096, 4096), nn.ReLU(inplace=True)),
        *row(8, nn.Linear(4096, num_classes)),
    )
