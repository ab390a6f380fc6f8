"""Which layers `init` takes from which sources, and what is printed about the others."""

import hashlib
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from alexnet_lab.data.module import ImageDataModule
from alexnet_lab.data.synthetic import synthetic
from alexnet_lab.errors import UserError
from alexnet_lab.models.lenet import lenet
from alexnet_lab.runs.initial_weights import take_weights

LENET = "alexnet_lab.models.lenet.lenet"


def data(classes: int = 10, channels: int = 1) -> ImageDataModule:
    sizes = {"image_size": 28, "batch_size": 4, "eval_batch_size": 4, "stored_size": 28}
    return synthetic(
        name="synthetic", num_classes=classes, channels=channels, mean=[0.5], std=[0.25],
        **sizes, train_size=8, val_size=4, test_size=4, seed=0, split_seed=0, channels_last=True,
    )  # fmt: skip


def network(classes: int = 10, channels: int = 1, seed: int = 1) -> nn.Module:
    torch.manual_seed(seed)
    return lenet(in_channels=channels, num_classes=classes, image_size=28)


def taken(net: nn.Module, path: Path, caplog: Any, **of_data: Any) -> tuple[set[str], str]:
    """The layers whose tensors `init` has changed, and what it printed."""
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with caplog.at_level(logging.INFO):
        take_weights(net, {"init": str(path), "model": {"_target_": LENET}}, data(**of_data), last="fc5")
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    return {name.rpartition(".")[0] for name in changed}, caplog.text


def saved(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


ALL = {"conv1", "conv2", "fc3", "fc4", "fc5"}


def test_layers_of_other_shapes_are_listed_and_keep_their_values(tmp_path, caplog) -> None:
    source = saved(network(seed=2).state_dict(), tmp_path / "net.pt")
    layers, printed = taken(network(classes=3), source, caplog, classes=3)
    assert layers == ALL - {"fc5"}
    assert f"init: 4 of 5 layers from {source}: conv1, conv2, fc3, fc4" in printed
    assert "init: initialised: fc5 (weight [10, 84], here [3, 84])" in printed


def test_other_number_of_channels_leaves_the_first_layer(tmp_path, caplog) -> None:
    source = saved(network(channels=3, seed=2).state_dict(), tmp_path / "net.pt")
    assert taken(network(), source, caplog)[0] == ALL - {"conv1"}


def without(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if key != name}


def test_layer_is_taken_or_left_as_a_whole(tmp_path, caplog) -> None:
    state = network(seed=2).state_dict()
    source = saved(without(state, "conv2.bias") | {"fc3.scale": torch.ones(1)}, tmp_path / "net.pt")
    layers, printed = taken(network(), source, caplog)
    assert layers == ALL - {"conv2", "fc3"}
    assert "conv2 (bias missing, here [16])" in printed
    assert "fc3 (has also scale)" in printed


@pytest.mark.parametrize("kind", ["nested", "parallel", "old format", "float64", "channels last"])
def test_state_dicts_of_other_programs_are_read(kind: str, tmp_path, caplog) -> None:
    state, path = network(seed=2).state_dict(), tmp_path / "net.pt"
    content = {
        "nested": {"state_dict": state, "epoch": 3},
        "parallel": {"state_dict": {f"module.{name}": value for name, value in state.items()}},
        "float64": {name: value.double() for name, value in state.items()},
        "channels last": network(seed=2).to(memory_format=torch.channels_last).state_dict(),
    }.get(kind, state)
    torch.save(content, path, _use_new_zipfile_serialization=kind != "old format")
    net = network()
    assert taken(net, path, caplog)[0] == ALL
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


def test_no_fitting_layer_is_refused_naming_both(tmp_path, caplog) -> None:
    source = saved({"features.0.weight": torch.zeros(64, 3, 11, 11)}, tmp_path / "net.pt")
    with pytest.raises(UserError) as raised:
        taken(network(), source, caplog)
    assert str(raised.value) == (
        f"init={source}: no layer of this file (features.0 [64, 3, 11, 11]) fits lenet "
        "(conv1 [6, 1, 5, 5], conv2 [16, 6, 5, 5], fc3 [120, 400] and 2 more)"
    )


def test_file_with_a_wrong_hash_is_refused_as_everywhere(tmp_path, caplog) -> None:
    content = saved(network(seed=2).state_dict(), tmp_path / "net.pt").read_bytes()
    right, wrong = (
        tmp_path / f"alexnet-owt-{hashlib.sha256(content).hexdigest()[:8]}.pth",
        tmp_path / "alexnet-owt-01234567.pth",
    )
    right.write_bytes(content)
    wrong.write_bytes(content)
    (dated := tmp_path / "net-20240131.pth").write_bytes(content)
    assert taken(network(), right, caplog)[0] == taken(network(), dated, caplog)[0] == ALL
    with pytest.raises(UserError, match=r"^init=.*SHA-256"):
        taken(network(), wrong, caplog)


@pytest.mark.parametrize(
    ("name", "message"),
    [("missing.pt", "there is no such file"), ("text.pt", "not a file of weights, but text"), ("", "checkpoints/best")],
)
def test_source_that_cannot_be_read_is_named_as_init(name: str, message: str, tmp_path, caplog) -> None:
    (tmp_path / "text.pt").write_text("text")
    with pytest.raises(UserError, match=f"^init=.*{message}"):
        taken(network(), tmp_path / name if name else tmp_path, caplog)
