"""Runs that start with another run's weights, that freeze layers, and that train them at different learning rates."""

import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from alexnet_lab.runs.metric_rows import read_rows
from alexnet_lab.training import train

Settings = Callable[..., dict[str, Any]]
SMALL = (
    *("data=synthetic", "data.train_size=19", "data.batch_size=4", "data.val_size=13", "data.test_size=7"),
    *("data.num_classes=5", "trainer=cpu", "logger=none", "callbacks.pictures=null", "test_on=last"),
)
LENET = ("model=lenet", *SMALL)

pytestmark = pytest.mark.usefixtures("as_in_a_rank")


def trained(settings: dict[str, Any], folder: Path, checkpoint: Path | None = None) -> dict[str, Tensor]:
    """Train in this process; the weights of the last checkpoint."""
    folder.mkdir(exist_ok=True)
    train(settings, folder, checkpoint, time.time())
    return weights(folder)


def weights(folder: Path, name: str = "last") -> dict[str, Tensor]:
    content: dict[str, Tensor] = torch.load(folder / f"checkpoints/{name}.ckpt", weights_only=True)["state_dict"]
    return content


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> set[str]:
    """The layers whose tensors are equal."""
    layers = {name.rpartition(".")[0] for name in one}
    same = {name for name in one if one[name].shape == other[name].shape and torch.equal(one[name], other[name])}
    return {layer for layer in layers if all(name in same for name in one if name.rpartition(".")[0] == layer)}


@pytest.fixture
def source(settings: Settings, tmp_path: Path) -> Path:
    """The folder of a run with ten classes."""
    folder = tmp_path / "source"
    trained(settings(*LENET, "data.num_classes=10", "trainer.max_epochs=1", "seed=3"), folder)
    return folder


TUNED = ("layers=[{pattern:last,lr:10}]", "freeze=[conv*]", "trainer.log_every_n_steps=1", "scheduler=cosine")


def test_run_starts_with_another_runs_layers_freezes_some_and_continues_without_it(
    source: Path, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = settings(*LENET, f"init={source}", *TUNED, "trainer.max_epochs=2")
    with caplog.at_level(logging.INFO):
        whole = trained(found, tmp_path / "whole")
    assert f"4 of 5 layers from {source}: conv1, conv2, fc3, fc4" in caplog.text
    assert "initialised: fc5 (weight [10, 84], here [5, 84])" in caplog.text
    start = weights(source, "best")
    assert equal(whole, start) == {"conv1", "conv2"}, "the frozen layers are those of the source, to the bit"
    rows = read_rows(tmp_path / "whole/metrics.csv")
    rates = [row["lr"] for row in rows if "lr" in row]
    assert rates[0] == found["optimizer"]["lr"], "the base learning rate is logged"

    first = trained({**found, "trainer": {**found["trainer"], "max_epochs": 1}}, tmp_path / "half")
    assert equal(first, whole) == {"conv1", "conv2"}
    shutil.rmtree(source)
    last = tmp_path / "half/checkpoints/last.ckpt"
    # The schedule's length follows from the epochs, so the continued run only has the same frozen layers.
    assert equal(trained(found, tmp_path / "half", last), start) == {"conv1", "conv2"}


def test_layers_without_a_source_are_initialised_as_ever(source: Path, settings: Settings, tmp_path: Path) -> None:
    """A learning rate of zero leaves all weights as they were at the start."""
    still = ("optimizer.lr=0", "trainer.max_epochs=1", "trainer.limit_train_batches=1")
    fresh = trained(settings(*LENET, *still), tmp_path / "fresh")
    begun = trained(settings(*LENET, *still, f"init={source}/checkpoints/last.ckpt"), tmp_path / "begun")
    assert equal(fresh, begun) == {"fc5"}
    assert equal(begun, weights(source)) == {"conv1", "conv2", "fc3", "fc4"}


@pytest.mark.parametrize("more", [("callbacks=ema",), ("optimizer=sgd_2012", "optimizer.convention=source"), ()])
def test_frozen_layers_stay_under_averages_decay_and_conventions(
    more: tuple[str, ...], settings: Settings, tmp_path: Path
) -> None:
    found = settings(*LENET, "freeze=[conv1,fc3]", "trainer.max_epochs=1", "optimizer.weight_decay=0.1", *more)
    first = trained({**found, "optimizer": {**found["optimizer"], "lr": 0.0}}, tmp_path / "still")
    for name in ("last", "best"):
        trained(found, tmp_path / "tuned")
        assert equal(weights(tmp_path / "tuned", name), first) == {"conv1", "fc3"}


def test_other_network_is_refused_in_a_line(source: Path, settings: Settings, refusal: Any) -> None:
    other = ("model=alexnet_torchvision", "model.image_size=63", *SMALL)
    (line, *_) = refusal(settings(*other, f"init={source}")).splitlines()
    assert line.startswith(f"error: init={source}: no layer of lenet (conv1 [6, 3, 5, 5], ")
    assert "fits alexnet_torchvision (features.0 [64, 3, 11, 11], " in line


def test_wrong_pattern_is_refused_in_a_line(settings: Settings, refusal: Any) -> None:
    assert "freeze=[features]: no layer has such a name; the layers: conv1, conv2, fc3, fc4, fc5" in refusal(
        settings(*LENET, "freeze=[features]")
    )
