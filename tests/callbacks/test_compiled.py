"""compile=cuda-graph, as far as it works without a GPU; tests/gpu trains with it."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from alexnet_lab.callbacks import compiled
from alexnet_lab.errors import UserError

SHORT = ("model=lenet", "data=synthetic", "logger=none", "trainer=cpu", "trainer.max_epochs=1", "test_on=none")
pytestmark = pytest.mark.usefixtures("as_in_a_rank")


def test_graph_needs_a_gpu(settings: Callable[..., Any], tmp_path: Path) -> None:
    from alexnet_lab.training import train

    with pytest.raises(UserError, match="compile=cuda-graph needs trainer=gpu with a single GPU"):
        train(settings(*SHORT, "compile=cuda-graph"), tmp_path, None, 0.0)


@pytest.mark.parametrize(
    ("strategy", "accumulated", "refusal"),
    [
        (SingleDeviceStrategy(torch.device("cuda", 0)), 1, None),
        (SingleDeviceStrategy(torch.device("cuda", 0)), 2, "cannot accumulate gradients"),
        (DDPStrategy(parallel_devices=[torch.device("cuda", 0)]), 1, "needs trainer=gpu with a single GPU"),
        (SingleDeviceStrategy(torch.device("cpu")), 1, "needs trainer=gpu with a single GPU"),
    ],
)
def test_graph_needs_one_gpu_and_whole_batches(strategy: Any, accumulated: int, refusal: str | None) -> None:
    trainer: Any = SimpleNamespace(strategy=strategy, accumulate_grad_batches=accumulated)
    with pytest.raises(UserError, match=refusal) if refusal else nullcontext():
        compiled.CudaGraph().setup(trainer, pl.LightningModule(), "fit")


@pytest.mark.parametrize("choices", [(), ("trainer.precision=64-true",)])
def test_recorded_batch_is_like_the_first_one(
    choices: tuple[str, ...], settings: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alexnet_lab import training

    seen = []

    class Compared(pl.Callback):
        def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            seen.append(compiled.sample_batch(trainer))

        def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 0:
                seen.append(batch.images)

    monkeypatch.setattr(training, "Heartbeat", lambda progress: Compared())
    train_size = ("data.train_size=40", "data.batch_size=20")
    training.train(settings(*SHORT, *train_size, *choices), tmp_path, None, 0.0)
    recorded, first = ((images.shape, images.dtype, images.stride()) for images in seen)
    assert recorded == first


def test_recording_does_not_count_in_the_statistics_of_batch_normalisation(monkeypatch: pytest.MonkeyPatch) -> None:
    net = torch.nn.Sequential(torch.nn.BatchNorm2d(3))
    module: Any = SimpleNamespace(net=net)
    plugin = SimpleNamespace(forward_context=nullcontext)
    sample = torch.zeros(2, 3, 4, 4)
    monkeypatch.setattr(compiled, "sample_batch", lambda trainer: sample)
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", lambda net, samples: net(*samples))  # as its warm-up does
    before = {name: value.clone() for name, value in net.state_dict().items()}
    compiled.CudaGraph().on_train_start(SimpleNamespace(precision_plugin=plugin), module)  # type: ignore[arg-type]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(net(sample), torch.zeros_like(sample))


def test_batches_of_another_size_are_not_replayed() -> None:
    forward = compiled.choosing(lambda images: "replayed", lambda images: "computed", torch.Size([4, 1, 2, 2]))
    assert [forward(torch.zeros(number, 1, 2, 2)) for number in (4, 3, 4)] == ["replayed", "computed", "replayed"]
