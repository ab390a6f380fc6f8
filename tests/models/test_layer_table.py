"""The layer table: its contents, and that it does not change the network."""

import io

import torch
from rich.console import Console
from torch import nn

from alexnet_lab.models.alexnet_half import alexnet_half_v1
from alexnet_lab.models.lenet import lenet
from alexnet_lab.models.table import count_macs, layer_table, render


def shown(net: nn.Module, in_channels: int, side: int) -> list[list[str]]:
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(render(layer_table(net, in_channels, side)))
    lines = console.export_text().replace("┃", "│").splitlines()
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if "│" in line]


def test_table_has_the_form_of_the_papers() -> None:
    with torch.device("meta"):
        lines = shown(alexnet_half_v1(), 3, 224)
    assert lines[0] == ["layer", "kind", "kernel", "stride", "pad", "groups", "output", "parameters", "MACs"]
    assert lines[1] == ["pad", "ZeroPad2d", "", "", "1,2,1,2", "", "3 x 227 x 227", "", ""]
    assert lines[2] == ["conv1", "Conv2d", "11x11", "4", "0", "1", "48 x 55 x 55", "17,472", "52,707,600"]
    assert lines[-2] == ["fc8", "Linear", "", "", "", "", "1000", "2,049,000", "2,048,000"]
    assert lines[-1] == ["total", "", "", "", "", "", "", "16,630,440", "311,191,824"]


def test_network_is_unchanged() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2).eval(), nn.Dropout(0.5))
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    random = torch.get_rng_state()
    layer_table(net, 1, 8)
    assert [m.training for m in net.modules()] == [True, True, False, True]
    assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(m._forward_hooks for m in net.modules())
    assert all(p.grad is None for p in net.parameters())


def test_macs_for_groups_and_dtypes() -> None:
    net = nn.Sequential(nn.Conv2d(4, 6, (3, 1), groups=2), nn.Flatten(), nn.Linear(6 * 3 * 5, 7)).bfloat16()
    assert count_macs(net, 4, 5) == (4 // 2 * 3) * (6 * 3 * 5) + 6 * 3 * 5 * 7


def test_rows_follow_the_forward_pass() -> None:
    names = [row.name for row in layer_table(lenet(), 1, 28)]
    assert names[:6] == ["conv1", "act1", "pool1", "conv2", "act2", "pool2"]
    assert names[-1] == "fc5"
