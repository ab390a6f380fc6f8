"""From the network's input back to pixels.

Shapes: N images, C channels, S the network's input size.
"""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from alexnet_lab.data.preprocessing import Preprocessing


def normalisation(facts: Preprocessing, images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of pixels in [0, 255] on the device of `images`, [N, C, S, S], to be copied once."""
    mean = torch.tensor(facts.mean).view(-1, 1, 1)
    if facts.mean_image is not None:
        mean = facts.mean_image.float()
        if mean.shape[1:] != images.shape[2:]:
            mean = interpolate(mean[None], size=images.shape[2:], mode="bilinear")[0]
    std = torch.tensor(facts.std).view(-1, 1, 1)
    return (mean * 255).to(images.device), (std * 255).to(images.device)


def pixels_of(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """The pixels, uint8 [N, C, S, S], of the network's input, float [N, C, S, S]: undoes the normalisation."""
    return torch.addcmul(mean, images.detach().float(), std).round_().clamp_(0, 255).byte()
