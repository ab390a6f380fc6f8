"""Runs that start with another run's weights, that freeze layers, and that train them at different learning rates."""

import logging
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from alexnet_lab.runs.folders import read_config
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


TUNED = (
    "scheduler=step",
    "scheduler.epochs=1",
    "layers=[{pattern:last,lr:10}]",
    "freeze=[conv*]",
    "trainer.log_every_n_steps=1",
)


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
    continued = trained(found, tmp_path / "half", tmp_path / "half/checkpoints/last.ckpt")
    assert equal(continued, whole) == {"conv1", "conv2", "fc3", "fc4", "fc5"}


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


@pytest.mark.parametrize("more", [("callbacks=layer_statistics",), ("trainer.gradient_clip_val=0.1",)], ids="-".join)
def test_frozen_layers_pass_through_everything_that_looks_at_gradients(
    more: tuple[str, ...], settings: Settings, tmp_path: Path
) -> None:
    found = settings(*LENET, "freeze=[conv*]", "trainer.max_epochs=1", "trainer.log_every_n_steps=1", *more)
    first = trained({**found, "optimizer": {**found["optimizer"], "lr": 0.0}}, tmp_path / "still")
    assert equal(trained(found, tmp_path / "tuned"), first) == {"conv1", "conv2"}
    norms = [row["train/grad_norm"] for row in read_rows(tmp_path / "tuned/metrics.csv") if "train/grad_norm" in row]
    assert len(norms) == 5
    assert all(norm > 0 for norm in norms)


def test_model_pretrained_is_an_older_name_of_init(source: Path, settings: Settings, refusal: Any) -> None:
    net = ("model=alexnet_torchvision", "model.image_size=63", *SMALL)
    assert f"model.pretrained={source}: no layer of lenet" in refusal(settings(*net, f"model.pretrained={source}"))
    both = settings(*net, f"model.pretrained={source}", f"init={source}")
    assert "init and model.pretrained both name weights to start with" in refusal(both)


def images(folder: Path, classes: str, count: int = 4) -> Path:
    for place, name in enumerate(classes):
        for number in range(count):
            path = folder / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 30), (60 * place, 50 * number, 9)).save(path)
    return folder


SMALLEST = ("model=lenet", "model.image_size=28", "data.crop_size=224", "data.batch_size=4", "init=null", "trainer=cpu")
QUIET = ("logger=none", "callbacks.pictures=null", "trainer.max_epochs=1")


def test_recipe_takes_the_classes_from_the_folder_and_records_them(settings: Settings, tmp_path: Path) -> None:
    found = settings("experiment=finetune", f"data.dir={images(tmp_path / 'images', 'abc')}", *SMALLEST, *QUIET)
    assert found["data"]["num_classes"] is found["model"]["num_classes"] is found["data"]["val_size"] is None
    trained(found, tmp_path / "run")
    config = read_config(tmp_path / "run")
    assert (config["data"]["num_classes"], config["model"]["num_classes"], config["data"]["val_size"]) == (3, 3, 3)
    content = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert content["config"]["model"] == config["model"]
    assert content["preprocessing"]["classes"] == ["a", "b", "c"]


def test_last_layer_for_other_classes_is_left_and_another_normalisation_is_printed(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def settings_of(classes: str, *more: str) -> dict[str, Any]:
        place = images(tmp_path / classes, classes)
        return settings("experiment=finetune", f"data.dir={place}", *SMALLEST, *QUIET, "optimizer.lr=0", *more)

    start = trained(settings_of("abc", "seed=4"), tmp_path / "source")
    init = f"init={tmp_path / 'source'}"
    with caplog.at_level(logging.INFO):
        same = trained(settings_of("abc", init), tmp_path / "same")
        assert "the source was trained with" not in caplog.text
        other = trained(settings_of("abd", init, "data.mean=[0.5]"), tmp_path / "other")
    assert equal(same, start) == {"conv1", "conv2", "fc3", "fc4", "fc5"}
    assert equal(other, start) == {"conv1", "conv2", "fc3", "fc4"}
    assert "init: initialised: fc5 (for other classes: a, b and 1 more)" in caplog.text
    assert "init: the source was trained with data.mean=[0.485, 0.456, 0.406], here [0.5]" in caplog.text


def test_network_of_the_user_starts_with_its_own_run(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mynet.py").write_text(
        "from torch import nn\n\n\n"
        "def mynet(in_channels, num_classes, image_size):\n"
        "    return nn.Sequential(nn.Conv2d(in_channels, 2, 5), nn.Flatten(), nn.Linear(2 * 24 * 24, num_classes))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = settings(*LENET, "optimizer.lr=0", "trainer.max_epochs=1")
    own = {key: found["model"][key] for key in ("in_channels", "num_classes", "image_size")}
    found["model"] = {"_target_": "mynet.mynet", **own}
    start = trained({**found, "seed": 3}, tmp_path / "source")
    tuned = {**found, "init": str(tmp_path / "source"), "freeze": [0]}
    assert equal(trained(tuned, tmp_path / "tuned"), start) == {"0", "2"}


def run(script: Any, folder: Path, *arguments: str) -> Path:
    ended = script.run(*arguments, f"hydra.run.dir={folder}")
    assert ended.returncode == 0, ended.stderr
    return folder


EXACT = ("trainer.precision=64-true", "trainer.log_every_n_steps=1", "checkpoints.every_minutes=0.0001")


@pytest.mark.system
@pytest.mark.parametrize(
    ("model", "trainer", "frozen"),
    [
        (("model=lenet", "freeze=[conv1,fc4]"), "ddp_cpu", {"conv1", "fc4"}),
        (
            ("model=alexnet_original", "model.image_size=67", "freeze=[conv*]", "optimizer.lr=0.0003"),
            "two_towers_cpu",
            {"conv1", "conv2", "conv3", "conv4", "conv5"},
        ),
    ],
    ids=["ddp", "two towers"],
)
def test_two_ranks_train_like_one(
    model: tuple[str, ...], trainer: str, frozen: set[str], script: Any, tmp_path: Path
) -> None:
    options = (
        *model,
        "model.dropout=0",
        *SMALL,
        *EXACT,
        "layers=[{pattern:last,lr:3},{pattern:*.bias,weight_decay:0}]",
    )
    start = run(script, tmp_path / "start", *options, "data.num_classes=7", "trainer.max_epochs=1", "seed=5")
    options += (f"init={start}", "trainer.max_epochs=2")
    one, two = (run(script, tmp_path / name, *options, f"trainer={name}") for name in ("cpu", trainer))
    ours, theirs = weights(two), weights(one)
    assert equal(ours, theirs) >= frozen
    assert equal(ours, weights(start, "best")) == frozen
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-7, atol=1e-10)
    rows = [[row["lr"] for row in read_rows(folder / "metrics.csv") if "lr" in row] for folder in (one, two)]
    assert rows[0] == rows[1]


@pytest.mark.system
def test_killed_run_continues_to_the_bit_without_its_source(script: Any, tmp_path: Path) -> None:
    options = (*LENET, *EXACT, *TUNED, "trainer.max_epochs=40", "trainer=ddp_cpu")
    start = run(script, tmp_path / "start", *LENET, "data.num_classes=7", "trainer.max_epochs=1")
    options += (f"init={start}",)
    whole = weights(run(script, tmp_path / "whole", *options))
    process = script.start(*options, f"hydra.run.dir={tmp_path / 'killed'}")
    script.wait(process, (tmp_path / "killed/checkpoints/last.ckpt").exists, "its first checkpoint")
    os.killpg(process.pid, signal.SIGKILL)
    script.finish(process)
    shutil.rmtree(start)
    ended = script.run(f"resume={tmp_path / 'killed'}")
    assert ended.returncode == 0, ended.stderr
    assert equal(weights(tmp_path / "killed"), whole) == {"conv1", "conv2", "fc3", "fc4", "fc5"}


@pytest.mark.system
def test_classes_of_the_folder_are_found_by_all_ranks_and_kept_in_a_continued_run(script: Any, tmp_path: Path) -> None:
    options = ("experiment=finetune", f"data.dir={images(tmp_path / 'images', 'abc')}", *SMALLEST, *QUIET)
    run(script, tmp_path / "run", *options, "trainer=ddp_cpu")
    ended = script.run(*options, f"resume={tmp_path / 'run'}", "seed=0", "trainer=cpu", "trainer.max_epochs=2")
    assert ended.returncode == 0, ended.stderr
    assert read_config(tmp_path / "run")["model"]["num_classes"] == 3
