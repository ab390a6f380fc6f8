"""Batch normalisation: one rank computes what PyTorch computes, and several ranks what one computes."""

import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from alexnet_lab.models.batch_norm import BatchNorm
from alexnet_lab.models.lenet import lenet

PARTS = ([slice(0, 5), slice(5, 6)], [slice(0, 4), slice(4, 4)])
"""The images of each rank, of two batches: unequal parts, and an empty one."""


def layers() -> nn.Sequential:
    """Two normalised convolutions: the second one's statistics depend on the first one's."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), BatchNorm(4), nn.Tanh(), nn.Conv2d(4, 3, 3, stride=2), BatchNorm(3))
    return net.double()


def images() -> Tensor:
    return 3 + torch.randn(6, 1, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def two_batches(net: nn.Module, rank: int | None) -> dict[str, Tensor]:
    """Gradients of the sum over both batches, and the buffers; `rank` None has all images."""
    for ranks in PARTS:
        part = slice(0, ranks[-1].stop) if rank is None else ranks[rank]
        net(images()[part]).pow(3).sum().backward()
    found = {name: parameter.grad for name, parameter in net.named_parameters() if parameter.grad is not None}
    return found | dict(net.named_buffers())


def one_rank(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    torch.save(two_batches(layers(), rank), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(script: Any, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensor]]:
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = [
        script.start(str(rank), str(port), str(folder), program=("tests/models/test_batch_norm.py",))
        for rank in range(2)
    ]
    for process in started:
        ended = script.finish(process)
        assert ended.returncode == 0, ended.stderr
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def test_two_ranks_have_the_statistics_of_all_images_and_their_gradients_sum_to_those_of_one(
    ranks: list[dict[str, Tensor]],
) -> None:
    expected = two_batches(layers(), None)
    for name, value in expected.items():
        if "running" in name or "tracked" in name:
            torch.testing.assert_close([rank[name] for rank in ranks], [value, value], rtol=1e-12, atol=1e-13)
        else:
            assert (value.abs().max() > 1e-3) != (name in ("0.bias", "3.bias"))  # the mean takes out a bias before it
            torch.testing.assert_close(ranks[0][name] + ranks[1][name], value, rtol=1e-9, atol=1e-11)


def test_one_rank_computes_what_pytorch_computes_to_the_bit() -> None:
    ours, theirs = layers(), layers()
    for place in (1, 4):
        theirs[place] = nn.BatchNorm2d(theirs[place].num_features).double()
    found, expected = two_batches(ours, None), two_batches(theirs, None)
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert torch.equal(ours.eval()(images()), theirs.eval()(images()))


def test_no_image_changes_no_statistics_and_one_value_is_the_bias() -> None:
    layer = BatchNorm(2)
    layer(torch.empty(0, 2, 3, 3)).sum().backward()
    assert layer.running_var.tolist() == [1, 1]
    assert int(layer.num_batches_tracked) == 0
    assert layer.weight.grad.tolist() == [0, 0]
    assert layer(torch.full((1, 2, 1, 1), 5.0)).flatten().tolist() == [0, 0]
    assert int(layer.num_batches_tracked) == 1


def test_frozen_layer_keeps_its_statistics_during_training() -> None:
    net = lenet(norm="batch")
    net.bn1.requires_grad_(False)
    net.train()
    net(torch.rand(4, 1, 28, 28))
    assert net.bn1.running_mean.abs().max() == 0
    assert net.bn2.running_mean.abs().max() > 0


if __name__ == "__main__":
    one_rank(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
