"""Grad-CAM: the parts of an image with evidence for a class, by the gradient of the class's logit.

Source: Selvaraju et al., "Grad-CAM", ICCV 2017, arXiv:1610.02391, equations 1 and 2.

Shapes: N images, C channels, S the network's input size, D feature maps of h x w, K classes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from alexnet_lab.errors import UserError
from alexnet_lab.models.layers import is_activation

NORMS = (nn.BatchNorm2d, nn.GroupNorm)


class Explained(NamedTuple):
    """The logits of a batch, and the map of one class for each image."""

    logits: Tensor
    """[N, K]"""
    classes: Tensor
    """int64 [N], the explained classes."""
    maps: Tensor
    """float32 [N, h, w], at least 0: the weighted sum of the feature maps; 0: no evidence for the class."""


def grad_cam(net: nn.Module, images: Tensor, class_index: int | None = None) -> Explained:
    """Explain one class of each image, by default the most probable one.

    The feature maps are the output of the last convolution of the forward pass, after the activation (and the batch
    norm) that directly follows it, and before pooling: act5 of AlexNet, act2 of LeNet. An activation that is not a
    module is taken into account only if it works in place.

    Args:
        net: in evaluation mode; its parameters get no gradient.
        images: float [N, C, S, S], not created in inference mode.

    Raises:
        UserError: the network has no convolution that the logits depend on.
    """
    with torch.enable_grad(), _last_maps(net) as found:
        # A network whose parameters are all frozen has gradients through its images alone.
        logits = net(images.detach().requires_grad_().clone())
        classes = logits.argmax(1) if class_index is None else torch.full_like(logits[:, 0], class_index).long()
        chosen = logits.gather(1, classes[:, None]).sum()
        gradient = torch.autograd.grad(chosen, found, allow_unused=True)[0] if found else None
    if gradient is None or gradient.dim() != 4:
        raise UserError("explain=gradcam: this network has no convolution (nn.Conv2d) that its output depends on")
    weights = gradient.float().mean((2, 3), keepdim=True)
    maps = (weights * found[0].detach().float()).sum(1).relu()
    return Explained(logits.detach(), classes, maps)


@contextmanager
def _last_maps(net: nn.Module) -> Iterator[list[Tensor]]:
    """A list that holds, after a forward pass within the context, the feature maps [N, D, h, w]; see `grad_cam`."""
    found: list[Tensor] = []

    def convolution(layer: nn.Module, inputs: Any, output: Tensor) -> None:
        found[:] = [output]

    def follower(layer: nn.Module, inputs: Any, output: Tensor) -> None:
        if found and inputs and inputs[0] is found[0]:
            found[:] = [output]

    hooks = [
        layer.register_forward_hook(convolution if isinstance(layer, nn.Conv2d) else follower)
        for layer in net.modules()
        if isinstance(layer, (nn.Conv2d, *NORMS)) or is_activation(type(layer))
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
