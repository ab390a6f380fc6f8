"""Settings that a trainer makes for the whole process, and the options of DDP on a GPU."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy

from alexnet_lab.callbacks.checkpoint_io import AtomicCheckpointIO
from alexnet_lab.config.trainer import make_trainer

Made = Callable[..., pl.Trainer]


@pytest.fixture
def made(settings: Callable[..., dict[str, Any]], tmp_path: Path) -> Iterator[Made]:
    """The trainer of these overrides."""
    before = torch.backends.cudnn.benchmark, os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)

    def make(*overrides: str) -> pl.Trainer:
        trainer = settings("trainer=cpu", *overrides)["trainer"]
        return make_trainer(trainer, tmp_path, [], [], AtomicCheckpointIO({}), None)

    yield make
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = before[0]
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


@pytest.mark.parametrize(
    ("overrides", "benchmark", "deterministic"),
    [
        ((), True, False),
        (("trainer.benchmark=false",), False, False),
        (("trainer.benchmark=true",), True, False),
        (("trainer.deterministic=true",), False, True),
        (("trainer.deterministic=warn",), False, True),
        (("trainer.deterministic=false",), True, False),
    ],
)
def test_kernels_are_timed_unless_the_run_is_deterministic_whatever_an_earlier_run_has_set(
    made: Made, overrides: tuple[str, ...], benchmark: bool, deterministic: bool
) -> None:
    for before in (("trainer.deterministic=true",), ("trainer.benchmark=false",), ()):
        made(*before)
        made(*overrides)
        found = torch.backends.cudnn.benchmark, torch.are_deterministic_algorithms_enabled()
        assert found == (benchmark, deterministic)


def test_deterministic_run_sets_the_workspace_of_cublas_before_the_network_is_on_the_gpu(made: Made) -> None:
    made()
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    made("trainer.deterministic=true")
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert not torch.cuda.is_initialized()


NODE = "trainer.strategy={_target_: lightning.pytorch.strategies.DDPStrategy, process_group_backend: gloo"


@pytest.mark.parametrize(
    ("overrides", "on_gpu", "options"),
    [
        (("trainer.strategy=ddp",), True, {"gradient_as_bucket_view": True}),
        (("trainer.strategy=ddp",), False, {}),
        ((f"{NODE}}}",), True, {"gradient_as_bucket_view": True}),
        ((f"{NODE}, gradient_as_bucket_view: false}}",), True, {"gradient_as_bucket_view": False}),
        ((f"{NODE}, static_graph: true}}",), True, {"static_graph": True, "gradient_as_bucket_view": True}),
    ],
)
def test_gradients_are_views_of_ddps_buckets_on_a_gpu_unless_chosen_otherwise(
    made: Made, monkeypatch: pytest.MonkeyPatch, overrides: tuple[str, ...], on_gpu: bool, options: dict[str, bool]
) -> None:
    if on_gpu:
        monkeypatch.setattr(DDPStrategy, "root_device", torch.device("cuda", 0))
    strategy = made(*overrides).strategy
    assert isinstance(strategy, DDPStrategy)
    assert strategy._ddp_kwargs == options
