"""The activation and the normalisation of a network, which every network here lets one choose.

norm=lrn    local response normalisation after the activation of conv1 and conv2 (paper, sections 3.3 and 3.5)
norm=batch  batch normalisation between each convolution and its activation (Ioffe, Szegedy 2015, arXiv:1502.03167)
norm=none   neither
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

from torch import nn

from alexnet_lab.models.batch_norm import BatchNorm
from alexnet_lab.models.checks import check_choice
from alexnet_lab.models.layers import ACTIVATIONS
from alexnet_lab.models.lrn import LocalResponseNorm

Activation = Literal["relu", "sigmoid", "tanh"]
Norm = Literal["lrn", "batch", "none"]
NORMS = ("lrn", "batch", "none")


class Switches(NamedTuple):
    """Makers of layers; a layer that is not chosen is `nn.Identity`, which has no row."""

    act: Callable[[], nn.Module]
    batch: Callable[[int], nn.Module]
    """Of the number of channels; for the place between a convolution and its activation."""
    lrn: Callable[[], nn.Module]


def lrn_of_2012() -> nn.Module:
    """Local response normalisation with the constants of the 2012 code."""
    return LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0)


def switches(activation: Activation, norm: Norm, response: Callable[[], nn.Module] = lrn_of_2012) -> Switches:
    """The makers for a network's settings; `response` makes the layer of norm=lrn. Raises UserError for others."""
    check_choice("activation", activation, ACTIVATIONS)
    check_choice("norm", norm, NORMS)
    return Switches(
        ACTIVATIONS[activation],
        BatchNorm if norm == "batch" else lambda channels: nn.Identity(),
        response if norm == "lrn" else nn.Identity,
    )
