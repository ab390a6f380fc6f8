"""torchvision's AlexNet, after "One weird trick for parallelizing convolutional neural networks".

    layer          out    kernel            side         parameters
    features.0      64    11x11/4 pad 2     224 -> 55        23,296   ReLU
    features.2             3x3/2             55 -> 27
    features.3     192    5x5 pad 2         27              307,392   ReLU
    features.5             3x3/2             27 -> 13
    features.6     384    3x3 pad 1         13              663,936   ReLU
    features.8     256    3x3 pad 1         13              884,992   ReLU
    features.10    256    3x3 pad 1         13              590,080   ReLU
    features.12            3x3/2             13 -> 6
    avgpool               mean over bins     6            flat 9216
    classifier.1  4096                                   37,752,832   dropout before, ReLU
    classifier.4  4096                                   16,781,312   dropout before, ReLU
    classifier.6  1000                                    4,097,000
                                                         61,100,840   714,188,480 MACs

Source: pytorch/vision, torchvision/models/alexnet.py (the names in the state dict are the same); Krizhevsky,
arXiv:1404.5997, for the widths.

Differences:
- From the paper of 2012: other widths, conv1 padded by 2, no towers, no LRN, PyTorch's default initialisation, dropout
  on the inputs of the first two linear layers.
- From torchvision: none in the function; the number of input channels is free, and at 224 the average pool, which
  then changes nothing, is not computed.
"""

import torch
from torch import Tensor, nn

from alexnet_lab.errors import UserError
from alexnet_lab.models.batch_norm import BatchNorm
from alexnet_lab.models.checks import check_common
from alexnet_lab.models.layers import StridedConv2d, max_pool, sequence
from alexnet_lab.models.lrn import LocalResponseNorm
from alexnet_lab.models.switches import Activation, Norm, switches


class MeanOverBins(nn.AdaptiveAvgPool2d):
    """torchvision's pool, which is the identity at the native size and is then left out.

    At other sizes it becomes two matrix products where determinism is asked for, since PyTorch has no deterministic
    gradient of the pool on a GPU.
    """

    def __init__(self) -> None:
        super().__init__((6, 6))

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, 6, 6]"""
        if input.shape[2:] == (6, 6):
            return input
        if not torch.are_deterministic_algorithms_enabled():
            return super().forward(input)
        rows, columns = (_bins(length, 6, input) for length in input.shape[2:])
        return rows @ input @ columns.T


def _bins(length: int, count: int, like: Tensor) -> Tensor:
    """[count, length]: the mean over each bin, from floor(i length / count) to ceil((i + 1) length / count)."""
    place, bin = (torch.arange(end, device=like.device) for end in (length, count))
    start, end = bin * length // count, -(-(bin + 1) * length // count)
    inside = (place >= start[:, None]) & (place < end[:, None])
    return (inside / inside.sum(1, keepdim=True)).to(like.dtype)


def alexnet_torchvision(
    in_channels: int = 3,
    num_classes: int = 1000,
    image_size: int = 224,
    dropout: float = 0.5,
    activation: Activation = "relu",
    norm: Norm = "none",
    pretrained: bool | str = False,
) -> nn.Sequential:
    """torchvision's network, float [N, C, S, S] -> logits float [N, num_classes].

    dropout: on the inputs of the first two linear layers. pretrained: an older name of the setting `init`, which a run
    reads; the network itself loads no weights. Raises UserError for values out of range.
    """
    if pretrained:
        raise UserError(f"pretrained={pretrained}: the network loads no weights; a run does, with init=torchvision")
    check_common(in_channels, num_classes, image_size, 63, dropout)
    act, batch, lrn = switches(activation, norm)
    features = _numbered(
        StridedConv2d(in_channels, 64, 11, stride=4, padding=2), batch(64), act(), lrn(), max_pool(),
        nn.Conv2d(64, 192, 5, padding=2), batch(192), act(), lrn(), max_pool(),
        nn.Conv2d(192, 384, 3, padding=1), batch(384), act(),
        nn.Conv2d(384, 256, 3, padding=1), batch(256), act(),
        nn.Conv2d(256, 256, 3, padding=1), batch(256), act(), max_pool(),
    )  # fmt: skip
    classifier = nn.Sequential(
        nn.Dropout(dropout), nn.Linear(256 * 6 * 6, 4096), act(),
        nn.Dropout(dropout), nn.Linear(4096, 4096), act(),
        nn.Linear(4096, num_classes),
    )  # fmt: skip
    return sequence(
        ("features", features),
        ("avgpool", MeanOverBins()),
        ("flatten", nn.Flatten()),
        ("classifier", classifier),
    )


def _numbered(*layers: nn.Module) -> nn.Sequential:
    """The layers in sequence, with the numbers of torchvision; a normalisation has that of its convolution.

    torchvision has none: `features.norm3` follows `features.3`, and all other names stay the same.
    """
    rows: list[tuple[str, nn.Module]] = []
    number, convolution = 0, 0
    for layer in layers:
        if isinstance(layer, BatchNorm | LocalResponseNorm):
            rows.append((f"norm{convolution}", layer))
        elif not isinstance(layer, nn.Identity):
            convolution = number if isinstance(layer, nn.Conv2d) else convolution
            rows.append((str(number), layer))
            number += 1
    return sequence(*rows)
