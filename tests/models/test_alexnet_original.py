"""The paper's network and CaffeNet: towers, padding, initialisation and the ablations' switches."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet_lab.models.alexnet_original import alexnet_original
from alexnet_lab.models.bvlc_alexnet import bvlc_alexnet
from alexnet_lab.models.caffenet import caffenet
from alexnet_lab.models.lrn import LocalResponseNorm
from alexnet_lab.models.table import count_parameters, layer_table

SIDE = 64  # the smallest; one output of pool5


@pytest.fixture(scope="module")
def original() -> nn.Sequential:
    torch.manual_seed(0)
    return alexnet_original(num_classes=7, image_size=SIDE).eval()


def on_meta(factory=alexnet_original, **parameters: object) -> nn.Sequential:
    with torch.device("meta"):
        return factory(**parameters)


def test_zero_padding_equals_the_overhanging_convolution_of_2012() -> None:
    x = torch.randn(1, 3, 224, 224)
    conv1 = nn.Conv2d(3, 96, 11, stride=4)
    pad = on_meta().pad
    with torch.no_grad():
        y = conv1(pad(x))
        assert y.shape == (1, 96, 55, 55)
        torch.testing.assert_close(y[..., :54, :54], conv1(x))
        for i, j in ((54, 54), (54, 10), (20, 54), (0, 0)):  # overhanging windows cover only existing pixels
            window = x[0, :, 4 * i : 4 * i + 11, 4 * j : 4 * j + 11]
            kernel = conv1.weight[..., : window.shape[1], : window.shape[2]]
            expected = (kernel * window).sum((1, 2, 3)) + conv1.bias
            torch.testing.assert_close(y[0, :, i, j], expected, rtol=1e-4, atol=1e-5)


def two_towers(net: nn.Sequential, x: Tensor) -> Tensor:
    """Section 3.5 of the paper: conv2, 4 and 5 read their own tower; conv3 and the linear layers read both."""

    def half(name: str, tower: int) -> tuple[Tensor, Tensor]:
        layer = net.get_submodule(name)
        return layer.weight.chunk(2)[tower], layer.bias.chunk(2)[tower]

    def normalised(x: Tensor) -> Tensor:
        return F.max_pool2d(F.local_response_norm(F.relu(x), 5, alpha=1e-4, beta=0.75, k=2.0), 3, 2)

    x = F.pad(x, (0, 3, 0, 3))
    maps = [normalised(F.conv2d(x, *half("conv1", t), stride=4)) for t in (0, 1)]
    maps = [normalised(F.conv2d(maps[t], *half("conv2", t), padding=2)) for t in (0, 1)]
    both = torch.cat(maps, 1)
    maps = [F.relu(F.conv2d(both, *half("conv3", t), padding=1)) for t in (0, 1)]
    maps = [F.relu(F.conv2d(maps[t], *half("conv4", t), padding=1)) for t in (0, 1)]
    maps = [F.max_pool2d(F.relu(F.conv2d(maps[t], *half("conv5", t), padding=1)), 3, 2) for t in (0, 1)]
    both = torch.cat(maps, 1).flatten(1)
    for name in ("fc6", "fc7"):
        both = torch.cat([F.relu(F.linear(both, *half(name, t))) for t in (0, 1)], 1)
    return net.fc8(both)


@torch.no_grad()
def test_grouped_convolutions_equal_two_towers(original: nn.Sequential) -> None:
    x = 100 * torch.randn(2, 3, SIDE, SIDE)
    expected = two_towers(original, x)
    assert expected.std() > 1e-4
    torch.testing.assert_close(original(x), expected, rtol=1e-4, atol=1e-5)


def assert_gaussian(layer: nn.Module, std: float, bias: float) -> None:
    weight = layer.weight.detach()
    error = std / weight.numel() ** 0.5  # of the mean
    assert abs(weight.mean()) < 5 * error
    assert weight.std() == pytest.approx(std, abs=5 * error)
    assert (layer.bias == bias).all()


def test_original_is_initialised_as_in_the_paper(original: nn.Sequential) -> None:
    ones = {"conv2", "conv4", "conv5", "fc6", "fc7"}
    for name in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"):
        assert_gaussian(original.get_submodule(name), std=0.01, bias=float(name in ones))


@pytest.mark.parametrize(("factory", "one"), [(caffenet, 1.0), (bvlc_alexnet, 0.1)])
def test_networks_of_caffe_initialise_fc6_and_fc7_with_smaller_std(factory, one: float) -> None:
    net = factory(num_classes=7, image_size=SIDE)
    ones = {"conv2", "conv4", "conv5", "fc6", "fc7"}
    for name in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"):
        std = 0.005 if name in {"fc6", "fc7"} else 0.01
        assert_gaussian(net.get_submodule(name), std=std, bias=one * (name in ones))


def test_lrn_constants_match_the_source_and_can_be_changed() -> None:
    def norms(net: nn.Module) -> list[tuple[float, ...]]:
        return [(m.size, m.alpha, m.beta, m.k, m.groups) for m in net.modules() if isinstance(m, LocalResponseNorm)]

    assert norms(on_meta()) == [(5, 1e-4, 0.75, 2.0, 2)] * 2
    assert norms(on_meta(towers=1)) == [(5, 1e-4, 0.75, 2.0, 1)] * 2
    for factory in (caffenet, bvlc_alexnet):
        assert norms(on_meta(factory)) == [(5, 1e-4, 0.75, 1.0, 1)] * 2
    for factory in (alexnet_original, caffenet, bvlc_alexnet):
        changed = on_meta(factory, lrn_size=3, lrn_alpha=5e-4, lrn_beta=0.5, lrn_k=1.5)
        assert [norm[:4] for norm in norms(changed)] == [(3, 5e-4, 0.5, 1.5)] * 2
        assert norms(on_meta(factory, norm="none")) == []


@pytest.mark.parametrize("factory", [alexnet_original, caffenet, bvlc_alexnet])
def test_non_overlapping_pools_keep_every_size(factory) -> None:
    plain = {row.name: row for row in layer_table(on_meta(factory), 3, 227)}
    other = {row.name: row for row in layer_table(on_meta(factory, overlapping_pooling=False), 3, 227)}
    for name, row in plain.items():
        assert (other[name].output, other[name].parameters) == (row.output, row.parameters)
        assert other[name].kernel == ((2, 2) if name.startswith("pool") else row.kernel)
        assert other[name].stride == row.stride


def test_non_overlapping_pools_accept_images_from_36_pixels() -> None:
    net = on_meta(overlapping_pooling=False, image_size=36)
    assert net(torch.empty(1, 3, 36, 36, device="meta")).shape == (1, 1000)
    with pytest.raises(ValueError, match=r"model\.image_size must be at least 36, got 35"):
        on_meta(overlapping_pooling=False, image_size=35)


@pytest.mark.parametrize("factory", [alexnet_original, caffenet, bvlc_alexnet])
def test_tanh_replaces_every_relu(factory) -> None:
    plain, other = on_meta(factory), on_meta(factory, activation="tanh")
    assert [type(m) for m in other] == [nn.Tanh if isinstance(m, nn.ReLU) else type(m) for m in plain]
    assert sum(isinstance(m, nn.Tanh) for m in other) == 7


def test_one_tower_equals_the_half_width_net_of_the_source() -> None:
    rows = {row.name: row for row in layer_table(on_meta(towers=1), 3, 224)}
    widths = [rows[name].output[0] for name in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")]
    assert widths == [48, 128, 192, 192, 256, 4096, 4096, 1000]
    assert {row.groups for name, row in rows.items() if name.startswith("conv")} == {1}
    conv = (3 * 121 + 1) * 48 + (48 * 25 + 1) * 128 + (128 * 9 + 1) * 192 + (192 * 9 + 1) * 192 + (192 * 9 + 1) * 256
    assert count_parameters(on_meta(towers=1)) == conv + 37_752_832 + 16_781_312 + 4_097_000


@pytest.mark.parametrize("factory", [alexnet_original, caffenet, bvlc_alexnet])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"lrn_size": 0}, "model.lrn_size must be at least 1, got 0"),
        ({"lrn_alpha": -1e-4}, "model.lrn_alpha must be at least 0"),
        ({"lrn_beta": -0.75}, "model.lrn_beta must be at least 0"),
        ({"lrn_k": 0.0}, "model.lrn_k must be greater than 0"),
        ({"activation": "gelu"}, "model.activation must be one of relu, sigmoid, tanh, got gelu"),
        ({"towers": 3}, "model.towers must be one of 2, 1, got 3"),
    ],
)
def test_wrong_switches_are_refused(factory, wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        factory(**wrong)


def test_a_step_changes_every_weight(original: nn.Sequential) -> None:
    original.zero_grad()
    F.cross_entropy(original(100 * torch.randn(4, 3, SIDE, SIDE)), torch.arange(4)).backward()
    assert all(p.grad is not None and p.grad.any() and p.grad.isfinite().all() for p in original.parameters())


@torch.no_grad()
def test_channels_last_gives_the_same_logits(original: nn.Sequential) -> None:
    x = 100 * torch.randn(2, 3, SIDE, SIDE)
    expected = original(x)
    y = original.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    original.to(memory_format=torch.contiguous_format)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.smoke
def test_compiled_network_has_no_graph_breaks_and_the_same_gradients(original: nn.Sequential) -> None:
    x = 100 * torch.randn(2, 3, SIDE, SIDE)
    compiled = torch.compile(original, backend="aot_eager", fullgraph=True)  # raises at a graph break
    losses = [F.cross_entropy(net(x), torch.tensor([1, 2])) for net in (original, compiled)]
    expected, found = (torch.autograd.grad(loss, list(original.parameters())) for loss in losses)
    torch.testing.assert_close(losses[1], losses[0])
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("as_in_a_rank")
@pytest.mark.parametrize(("choice", "mode"), [("true", None), ("reduce-overhead", "reduce-overhead")])
def test_compile_passes_its_mode_to_torch(
    choice: str, mode: str | None, settings: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alexnet_lab.training import train

    modes = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, mode: modes.append(mode))
    short = ("data=synthetic", "data.train_size=32", "logger=none", "trainer=cpu", "trainer.max_epochs=1")
    train(settings("model=lenet", *short, "test_on=none", f"compile={choice}"), tmp_path, None, 0.0)
    assert modes == [mode]


@pytest.mark.system
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_run_with_compile_trains_like_one_without(script: Any, tmp_path: Path) -> None:
    from alexnet_lab.runs.metric_rows import read_rows

    small = ("model=alexnet_original", f"model.image_size={SIDE}", "model.dropout=0", "data=synthetic", "trainer=cpu")
    short = ("data.train_size=8", "data.batch_size=4", "data.val_size=4", "trainer.max_epochs=1", "logger=none")
    losses = []
    for choice in ("compile=false", "compile=true"):
        folder = tmp_path / choice
        more = ("trainer.log_every_n_steps=1", "test_on=none", f"hydra.run.dir='{folder}'")
        ended = script.run(*small, *short, *more, choice)
        assert ended.returncode == 0, ended.stderr
        losses.append([row["train/loss_step"] for row in read_rows(folder / "metrics.csv") if "train/loss_step" in row])
    assert len(losses[1]) == 2
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
