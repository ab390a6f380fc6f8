"""A two-tower network split over two processes: each has one tower, half of every layer's outputs.

    layer   input of a process                     outputs
    conv1   the images, the same in both           48 of 96 filters
    conv2   its own 48 maps                        128 of 256
    conv3   both towers' 256 maps, joined          192 of 384
    conv4   its own 192                            192 of 384
    conv5   its own 192                            128 of 256
    fc6     both towers' 9216, joined              2048 of 4096
    fc7     both towers' 4096, joined              2048 of 4096
    fc8     both towers' 4096, joined              half of the classes, tower 0 the odd one

The towers' logits are joined for the softmax. Each layer is split along its outputs, dimension 0 of weight and bias,
so a tower's part of any tensor is its half of the rows.

Source: paper, sections 3.2 and 3.5, figure 2: layers read across the towers in conv3, fc6, fc7 and fc8 only.

Shapes: N images, C channels or features of both towers, K classes.
"""

from collections import OrderedDict
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet_lab.models.batch_norm import BatchNorm
from alexnet_lab.models.lrn import LocalResponseNorm

TOWERS = 2
GROUPS = {"conv1": 1, "conv2": 2, "conv3": 1, "conv4": 2, "conv5": 2}
"""Groups of each convolution of a network with towers: 2 where a tower reads only its own maps."""
READ_BOTH = ("conv3", "fc6", "fc7", "fc8")


def has_towers(net: nn.Module) -> bool:
    """Whether the towers of `net` exchange data only at the inputs of conv3, fc6, fc7 and fc8."""
    layers = dict(net.named_children())
    groups = {name: layer.groups for name, layer in layers.items() if isinstance(layer, nn.Conv2d)}
    norms = {layer.groups for layer in layers.values() if isinstance(layer, LocalResponseNorm)}
    return groups == GROUPS and norms <= {TOWERS} and layers.keys() >= set(READ_BOTH)


def keep_tower(net: nn.Module, tower: int) -> nn.Sequential:
    """Keep only tower 0 or 1 of `net`, which is split and must not be used afterwards.

    The result maps whole images [N, channels, S, S] to the logits of all classes [N, K], the same in both processes.
    Calls are collective over the default process group, which has one process per tower. Layers keep their names.
    Backward expects the same loss in both processes and computes the gradient of this single loss.
    """
    assert has_towers(net)
    rows: OrderedDict[str, nn.Module] = OrderedDict()
    for name, layer in net.named_children():
        if name in READ_BOTH:
            rows[f"join_{name}"] = Join()
        if isinstance(layer, nn.Linear):
            num_outputs = layer.out_features
        _cut(layer, tower)
        rows[name] = layer
    rows["join_logits"] = JoinLogits(num_outputs)
    return nn.Sequential(rows)


def is_tower(net: nn.Module) -> bool:
    """Whether `keep_tower` returned it."""
    return any(isinstance(layer, JoinLogits) for layer in net.children())


def part_of(whole: Tensor, tower: int) -> Tensor:
    """A copy of a tower's half of the rows; tower 0 has one more of an odd number. A scalar belongs to both."""
    return whole.tensor_split(TOWERS)[tower].clone() if whole.dim() else whole


def whole_of(part: Tensor) -> Tensor:
    """The reverse of `part_of`, on the host, in the part's memory format; both processes must call it together."""
    if not part.dim():
        return part
    # Fused optimizers match the elements of a weight and its state by position in memory.
    last = part.dim() == 4 and not part.is_contiguous() and part.is_contiguous(memory_format=torch.channels_last)
    memory_format = torch.channels_last if last else torch.contiguous_format
    rows = [torch.zeros((), dtype=torch.int64, device=part.device) for _ in range(TOWERS)]
    dist.all_gather(rows, torch.tensor(len(part), device=part.device))
    parts = [part.new_empty(int(number), *part.shape[1:]) for number in rows]
    parts[dist.get_rank()].copy_(part)
    for tower, rows_of_tower in enumerate(parts):
        dist.broadcast(rows_of_tower, src=tower)
    return torch.cat([rows_of_tower.cpu() for rows_of_tower in parts]).contiguous(memory_format=memory_format)


class Join(nn.Module):
    """The channels of both towers, concatenated: [N, C / 2, ...] -> [N, C, ...], for a layer that reads both."""

    def forward(self, x: Tensor) -> Tensor:
        # With the channels last, a tower's maps are contiguous, and channels_last maps need no copy.
        joined: Tensor = _Exchange.apply(x.movedim(1, -1).contiguous(), False)
        return joined.movedim(-1, 1)


class JoinLogits(nn.Module):
    """The classes of both towers, [N, classes of this tower] -> [N, K]."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, (0, -(-self.num_classes // TOWERS) - x.shape[1]))  # both towers must have the same width
        joined: Tensor = _Exchange.apply(padded.contiguous(), True)
        return joined[:, : self.num_classes]


class _Exchange(torch.autograd.Function):
    """Concatenates the towers' tensors along the last dimension.

    Normally, each tower computes a part of what follows, and the gradients of the parts are added. With `repeated`,
    both towers compute the same (the loss), and the gradient counts once.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, repeated: bool) -> Tensor:
        ctx.repeated = repeated
        parts = [torch.empty_like(x) for _ in range(TOWERS)]
        dist.all_gather(parts, x)
        return torch.cat(parts, dim=-1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        parts = [part.contiguous() for part in gradients[0].chunk(TOWERS, dim=-1)]
        if ctx.repeated:
            return parts[dist.get_rank()], None
        mine = torch.empty_like(parts[0])
        dist.reduce_scatter(mine, parts)
        return mine, None


def _cut(layer: nn.Module, tower: int) -> None:
    """Remove the other tower's part from the layer."""
    if isinstance(layer, nn.Conv2d | nn.Linear | BatchNorm):
        assert layer.bias is not None
        layer.weight = nn.Parameter(part_of(layer.weight.detach(), tower), layer.weight.requires_grad)
        layer.bias = nn.Parameter(part_of(layer.bias.detach(), tower), layer.bias.requires_grad)
    match layer:
        case nn.Conv2d():
            layer.in_channels //= layer.groups
            layer.out_channels = len(layer.weight)
            layer.groups = 1
        case nn.Linear():
            layer.out_features = len(layer.weight)
        case LocalResponseNorm():
            layer.groups = 1
        case BatchNorm():
            for name in ("running_mean", "running_var"):
                setattr(layer, name, part_of(layer.get_buffer(name), tower))
            layer.num_features, layer.over_ranks = len(layer.weight), False
