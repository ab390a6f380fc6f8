"""The statistics of layers: their numbers, their file, and that the training stays the same."""

import csv
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from alexnet_lab.callbacks.layer_statistics import LayerStatistics
from alexnet_lab.errors import UserError
from alexnet_lab.loggers.others import NoLogger
from alexnet_lab.runs.metric_rows import read_columns
from alexnet_lab.training import train

TINY = (
    *("model=lenet", "data=synthetic", "data.channels=1", "data.stored_size=28", "data.train_size=44"),
    *(
        "data.batch_size=16",
        "data.val_size=8",
        "data.test_size=8",
        "optimizer.lr=0.05",
        "trainer.gradient_clip_val=0.01",
    ),
    *("logger=none", "trainer=cpu", "trainer.max_epochs=2", "test_on=none", "checkpoints.every_minutes=1e-9"),
    *("callbacks.pictures=null", "callbacks.progress=null"),
)
"""Two epochs of three steps, the last of twelve images."""
EVERY_STEP = ("callbacks=layer_statistics", "callbacks.layer_statistics.every_n_steps=1")
KEPT = (
    "+callbacks.kept={_target_: test_layer_statistics.Kept}",
    "+logger.logged={_target_: test_layer_statistics.Logged}",
)


class Kept(pl.Callback):
    """Keeps images, gradients and weights of the last step."""

    images: torch.Tensor
    before: dict[str, torch.Tensor]
    gradients: dict[str, torch.Tensor]
    after: dict[str, torch.Tensor]

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        Kept.images = batch.images.clone()

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        Kept.before = {name: one.detach().clone() for name, one in module.net.named_parameters()}
        Kept.gradients = {name: one.grad.clone() for name, one in module.net.named_parameters()}

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        Kept.after = {name: one.detach().clone() for name, one in module.net.named_parameters()}


class Logged(NoLogger):
    values: dict[int, dict[str, float]] = {}  # noqa: RUF012 - shared with the run, which makes its own object

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Keep them."""
        self.values.setdefault(step or 0, {}).update(metrics)


class Crash(pl.Callback):
    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == 5:
            raise RuntimeError("on purpose")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("statistics")

    def folder(name: str) -> Path:
        (root / name).mkdir(exist_ok=True)
        return root / name

    return folder


Start = Callable[..., Path]


@pytest.fixture
def start(settings: Callable[..., Any], folders: Callable[[str], Path], as_in_a_rank: None) -> Start:
    def run(name: str, *overrides: str, checkpoint: Path | None = None) -> Path:
        folder = folders(name)
        train(settings(*TINY, *overrides), folder, checkpoint, 0.0)
        return folder

    return run


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "layer_statistics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def numbers(row: dict[str, str]) -> dict[str, float]:
    return {name: float(value) for name, value in row.items() if value and name not in ("layer", "step", "epoch")}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    content = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return {
        **content["state_dict"],
        **{f"momentum{k}": v["momentum_buffer"] for k, v in content["optimizer_states"][0]["state"].items()},
    }


def test_numbers_are_those_of_the_step_and_training_is_equal_to_the_bit(start: Start) -> None:
    plain, recorded = start("plain", *KEPT), start("recorded", *EVERY_STEP, *KEPT)
    one, other = weights(plain), weights(recorded)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    found = {row["layer"]: numbers(row) for row in rows(recorded) if row["step"] == "6"}
    assert [*found] == ["conv1", "act1", "conv2", "act2", "fc3", "act3", "fc4", "act4", "fc5"]
    assert [row["epoch"] for row in rows(recorded)] == ["0"] * 27 + ["1"] * 27
    output = nn.functional.conv2d(Kept.images, Kept.before["conv1.weight"], Kept.before["conv1.bias"], padding=2)
    for layer, values in (("conv1", output), ("act1", output.sigmoid())):
        expected = {"activation_mean": values.mean(), "activation_std": values.std(correction=0), "zeros": 0.0}
        assert {name: found[layer][name] for name in expected} == pytest.approx(
            {k: float(v) for k, v in expected.items()}, rel=1e-5
        )
    assert found["act1"].keys() == {"activation_mean", "activation_std", "zeros"}
    for layer in ("conv1", "fc5"):
        gradient, before, after = (
            torch.cat([kept[f"{layer}.{part}"].flatten() for part in ("weight", "bias")]).double()
            for kept in (Kept.gradients, Kept.before, Kept.after)
        )
        expected = {
            "gradient_norm": gradient.norm(),
            "gradient_mean_abs": gradient.abs().mean(),
            "weight_norm": before.norm(),
            "update_ratio": (after - before).norm() / before.norm(),
        }
        assert {name: found[layer][name] for name in expected} == pytest.approx(
            {k: float(v) for k, v in expected.items()}, rel=1e-4
        )
    logged = Logged.values[6]
    assert logged["epoch"] == 1
    assert {name for name in logged if name.startswith("layers/")} == {
        f"layers/{layer}/{name}" for layer in found for name in found[layer]
    }
    assert logged["layers/conv1/update_ratio"] == found["conv1"]["update_ratio"]
    assert not [name for name in read_columns(recorded / "metrics.csv") if "layers" in name]
    assert not (plain / "layer_statistics.csv").exists()


def test_continued_run_writes_each_row_once(start: Start, folders: Callable[[str], Path]) -> None:
    whole = start("whole", *EVERY_STEP)
    crash = "+callbacks.crash={_target_: test_layer_statistics.Crash}"
    with pytest.raises(RuntimeError, match="on purpose"):
        start("parts", *EVERY_STEP, crash)
    parts = folders("parts")
    with (parts / "layer_statistics.csv").open("a") as file:
        file.write("1,5,fc5,0.1")  # cut off by a kill
    (parts / "result.json").unlink()
    start("parts", *EVERY_STEP, checkpoint=parts / "checkpoints" / "last.ckpt")
    assert (parts / "layer_statistics.csv").read_text() == (whole / "layer_statistics.csv").read_text()


@pytest.mark.parametrize("row", ["1,x,fc5,0.1\n", "1\n", "\n"])
def test_damaged_file_is_reported_in_a_line(tmp_path: Path, row: str) -> None:
    (tmp_path / "layer_statistics.csv").write_text(f"epoch,step,layer\n0,1,fc5\n{row}")
    trainer: Any = SimpleNamespace(is_global_zero=True, global_step=2)
    with pytest.raises(UserError, match=r"layer_statistics\.csv is damaged \(.*\): repair it, or move it away$"):
        LayerStatistics(str(tmp_path)).on_train_start(trainer, nn.Module())  # type: ignore[arg-type]


def test_micro_batches_are_described_together_and_only_every_nth_step(start: Start) -> None:
    every_two = ("callbacks=layer_statistics", "callbacks.layer_statistics.every_n_steps=2")
    whole, split = start("two", *every_two), start("split", *every_two, "trainer.accumulate_grad_batches=3")
    assert [row["step"] for row in rows(whole)] == [str(step) for step in (2, 4, 6) for _ in range(9)]
    for one, other in zip(rows(whole), rows(split), strict=True):
        assert (one["step"], one["layer"]) == (other["step"], other["layer"])
        assert numbers(other) == pytest.approx(numbers(one), rel=1e-3, abs=1e-7)


def test_share_of_zeros_is_that_of_the_relu(start: Start) -> None:
    found = {
        row["layer"]: numbers(row)
        for row in rows(
            start("relu", *EVERY_STEP, "model=alexnet_half_v2", "model.image_size=67", "trainer.max_steps=1")
        )
    }
    assert 0.1 < found["act1"]["zeros"] < 0.9
    assert found["conv1"]["zeros"] < 0.01


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("compile=true", "callbacks.layer_statistics reads the outputs of layers, .* choose compile=false"),
        ("callbacks.layer_statistics.every_n_steps=0", "every_n_steps must be at least 1, got 0"),
        ("callbacks.layer_statistics.every_n_steps=often", "every_n_steps: 'often' does not fit"),
    ],
)
def test_what_cannot_be_recorded_is_refused_before_training(
    start: Start, tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        start("refused", *EVERY_STEP, override)


@pytest.mark.system
def test_ranks_record_the_statistics_of_the_global_batch(script: Any, tmp_path: Path) -> None:
    for name, more in (("one", ("trainer=cpu",)), ("three", ("trainer=ddp_cpu", "trainer.devices=3"))):
        done = script.run(*TINY, *EVERY_STEP, *more, f"hydra.run.dir={tmp_path}/{name}")
        assert done.returncode == 0, done.stderr
    for one, other in zip(rows(tmp_path / "one"), rows(tmp_path / "three"), strict=True):
        assert (one["step"], one["layer"]) == (other["step"], other["layer"])
        assert numbers(other) == pytest.approx(numbers(one), rel=1e-3, abs=1e-7)
