"""Two processes with a tower each, compared with the same network in one: outputs, gradients and parameters.

The two processes are started once; what they compute is compared here.
"""

import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from alexnet_lab.errors import UserError
from alexnet_lab.models.alexnet_original import alexnet_original
from alexnet_lab.models.caffenet import caffenet
from alexnet_lab.models.lenet import lenet
from alexnet_lab.models.lrn import LocalResponseNorm
from alexnet_lab.models.towers import has_towers, is_tower, keep_tower, part_of, whole_of
from alexnet_lab.models.two_towers import TwoTowers, _clip_by_norm_of_both

CLASSES = 5
CLIP = 0.01
BATCH = 3


def network() -> nn.Sequential:
    """In double precision, fc6 and fc7 narrow, with weights that let signals and gradients pass."""
    torch.manual_seed(0)
    net = alexnet_original(num_classes=CLASSES, image_size=67, dropout=0.0)
    net.fc6, net.fc7, net.fc8 = nn.Linear(256, 32), nn.Linear(32, 32), nn.Linear(32, CLASSES)
    for parameter in net.parameters():
        if parameter.dim() > 1:
            nn.init.kaiming_normal_(parameter)
    return net.double()


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(BATCH, 3, 67, 67, dtype=torch.float64, generator=generator), torch.tensor([0, 4, 2])


def step(net: nn.Module) -> dict[str, Any]:
    """Logits and gradients of one batch."""
    images, labels = batch()
    net.zero_grad()
    logits = net(images)
    cross_entropy(logits, labels).backward()
    return {
        "logits": logits.detach(),
        "gradients": {name: parameter.grad.clone() for name, parameter in net.named_parameters()},
    }


def one_tower(rank: int, port: int, folder: str) -> None:
    """The work of a process; rank 0 saves the results of both."""
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    net = keep_tower(network(), rank)
    found = step(net)
    found["gradients"] = {name: whole_of(part) for name, part in found["gradients"].items()}
    found["weights"] = {name: whole_of(part) for name, part in net.state_dict().items()}
    found["shapes"] = {name: tuple(part.shape) for name, part in net.state_dict().items()}
    last = net.conv2.weight.detach().to(memory_format=torch.channels_last)
    found["strides"] = [whole_of(part).stride() for part in (last, last.contiguous())]
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    _clip_by_norm_of_both(optimizer, CLIP)
    found["clipped"] = {name: whole_of(parameter.grad) for name, parameter in net.named_parameters()}
    net.zero_grad()
    net(torch.zeros(0, 3, 67, 67, dtype=torch.float64)).sum().backward()
    found["of no images"] = max(float(parameter.grad.abs().max()) for parameter in net.parameters())
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def towers(script: Any, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The results of tower 0 and tower 1."""
    folder = tmp_path_factory.mktemp("towers")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = [(str(rank), str(port), str(folder)) for rank in range(2)]
    for process in [script.start(*words, program=("tests/models/test_towers.py",)) for words in arguments]:
        ended = script.finish(process)
        assert ended.returncode == 0, ended.stderr
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    return step(network())


def test_logits_equal_the_whole_networks_in_both_processes(towers: list[dict[str, Any]], whole: dict[str, Any]) -> None:
    for tower in towers:
        torch.testing.assert_close(tower["logits"], whole["logits"], rtol=1e-9, atol=1e-12)
    assert torch.equal(towers[0]["logits"], towers[1]["logits"])


def test_gradients_equal_the_whole_networks(towers: list[dict[str, Any]], whole: dict[str, Any]) -> None:
    assert list(towers[0]["gradients"]) == list(whole["gradients"])
    for name, gradient in whole["gradients"].items():
        assert gradient.abs().max() > 0
        torch.testing.assert_close(towers[0]["gradients"][name], gradient, rtol=1e-8, atol=1e-12)


def test_gathered_weights_equal_the_whole_networks_bit_for_bit(towers: list[dict[str, Any]]) -> None:
    expected = network().state_dict()
    for tower in towers:
        assert list(tower["weights"]) == list(expected)
        assert all(torch.equal(tower["weights"][name], value) for name, value in expected.items())


def test_gathered_tensors_keep_their_memory_format(towers: list[dict[str, Any]]) -> None:
    whole = network().conv2.weight.detach()
    expected = [whole.contiguous(memory_format=torch.channels_last).stride(), whole.stride()]
    assert [tower["strides"] for tower in towers] == [expected, expected]


def test_each_process_holds_half_of_every_layer(towers: list[dict[str, Any]]) -> None:
    shapes = [tower["shapes"] for tower in towers]
    assert shapes[0]["conv1.weight"] == shapes[1]["conv1.weight"] == (48, 3, 11, 11)
    assert shapes[0]["conv2.weight"] == shapes[1]["conv2.weight"] == (128, 48, 5, 5)
    assert shapes[0]["conv3.weight"] == shapes[1]["conv3.weight"] == (192, 256, 3, 3)
    assert shapes[0]["conv4.weight"] == shapes[1]["conv4.weight"] == (192, 192, 3, 3)
    assert shapes[0]["conv5.bias"] == shapes[1]["conv5.bias"] == (128,)
    assert shapes[0]["fc6.weight"] == shapes[1]["fc6.weight"] == (16, 256)
    assert shapes[0]["fc7.weight"] == shapes[1]["fc7.weight"] == (16, 32)
    assert (shapes[0]["fc8.weight"], shapes[1]["fc8.weight"]) == ((3, 32), (2, 32))


def test_clipping_uses_the_norm_over_both_towers(towers: list[dict[str, Any]]) -> None:
    net = network()
    step(net)
    nn.utils.clip_grad_norm_(net.parameters(), CLIP)
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(towers[0]["clipped"][name], parameter.grad, rtol=1e-7, atol=1e-14)


def test_empty_micro_batch_has_gradients_of_zero(towers: list[dict[str, Any]]) -> None:
    assert [tower["of no images"] for tower in towers] == [0.0, 0.0]


def test_parameters_of_the_published_network_are_halved() -> None:
    with torch.device("meta"):
        whole, net = alexnet_original(), keep_tower(alexnet_original(), 1)
    assert sum(parameter.numel() for parameter in whole.parameters()) == 60_965_224
    assert sum(parameter.numel() for parameter in net.parameters()) == 60_965_224 // 2


def test_normalisation_covers_one_tower() -> None:
    net = keep_tower(alexnet_original(image_size=67), 0)
    assert is_tower(net)
    assert [layer.groups for layer in net.children() if isinstance(layer, LocalResponseNorm)] == [1, 1]


def test_odd_row_goes_to_the_first_tower_and_a_scalar_to_both() -> None:
    rows = torch.arange(5)
    assert (part_of(rows, 0).tolist(), part_of(rows, 1).tolist()) == ([0, 1, 2], [3, 4])
    assert part_of(torch.tensor(7.0), 0) == part_of(torch.tensor(7.0), 1) == whole_of(torch.tensor(7.0)) == 7


def test_networks_with_separate_towers_are_recognised() -> None:
    with torch.device("meta"):
        assert has_towers(alexnet_original())
        assert has_towers(alexnet_original(norm="none", activation="tanh", overlapping_pooling=False, num_classes=7))
        assert not has_towers(alexnet_original(towers=1))
        assert not has_towers(caffenet())  # its normalisation reads across the towers
        assert has_towers(caffenet(norm="none"))
        assert not has_towers(lenet())


@pytest.mark.parametrize(
    ("facts", "compiled", "message"),
    [
        ({"world_size": 3}, False, r"trainer\.devices=3: two_towers needs 2"),
        ({"net": "lenet"}, False, "this network does not have two towers; choose model=alexnet_original"),
        ({}, True, "choose compile=false"),
        ({"scaler": object()}, False, "choose bf16-mixed or 32-true"),
    ],
)
def test_unsupported_network_is_refused(
    facts: dict[str, Any], compiled: bool, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    strategy = TwoTowers()
    monkeypatch.setattr(TwoTowers, "world_size", facts.get("world_size", 2))
    monkeypatch.setattr(strategy.precision_plugin.__class__, "scaler", facts.get("scaler"), raising=False)
    with torch.device("meta"):
        net = lenet() if "net" in facts else alexnet_original()
    with pytest.raises(UserError, match=message):
        strategy.check(net, compiled)


if __name__ == "__main__":
    one_tower(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
