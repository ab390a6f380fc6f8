"""How often a training step makes the host wait for the device, counted in whole runs on PyTorch's `meta` device.

`meta` stands for a GPU: the host cannot see the content of its tensors, and each attempt to read one is counted.
"""

import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.accelerators import CPUAccelerator
from PIL import Image
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from alexnet_lab.data.store.prepare import prepare
from alexnet_lab.training import train

EVERY = 5  # steps between two logged steps
STEPS = range(EVERY, 4 * EVERY)  # without the first ones, which measure the speed
ON_META = (
    "model.image_size=67", "data.batch_size=1", "logger=none", "trainer=cpu", "test_on=none",
    "trainer.strategy={_target_:lightning.pytorch.strategies.SingleDeviceStrategy,device:meta}",
    "trainer.max_steps=400", "trainer.limit_val_batches=0", f"trainer.log_every_n_steps={EVERY}",
    "checkpoints.keep=false", "callbacks.pictures=null", "+callbacks.steps={_target_:test_synchronisations.Steps}",
)  # fmt: skip
PHOTOGRAPHS = ("data=imagenette", "data.num_classes=2", "data.val_size=1")
STATISTICS = (
    "callbacks=layer_statistics",
    f"callbacks.layer_statistics.every_n_steps={EVERY}",
    "callbacks.pictures=null",
)
RECIPES: dict[str, tuple[tuple[str, ...], int]] = {
    # overrides, and the tensors of a batch: images, labels, samples and the draws that the pipeline needs
    "2012 source": (("experiment=krizhevsky_2012", "scheduler=constant", *PHOTOGRAPHS), 6),
    "Caffe": (("experiment=caffenet_2014", *PHOTOGRAPHS), 5),
    "one weird trick": (("experiment=one_weird_trick_2014", *PHOTOGRAPHS, "data.jitter=0.4"), 6),
    "article": (("experiment=article_ungrouped", *PHOTOGRAPHS, "data.rotation=10", "data.scaling=0.1"), 8),
    "resized small images": (("model=alexnet_half_v2", "data=synthetic"), 3),
    "augmented small images": (
        ("model=lenet", "data=synthetic", "data.crop=random", "data.flip=0.5", "data.jitter=0.4", "data.colour=paper"),
        7,
    ),
    "mixed": (("model=lenet", "data=synthetic", "data.batch_size=2", "data.mixup_alpha=0.2", "data.cutmix_alpha=1"), 7),
    "weighted": (("model=lenet", "data=synthetic", "loss.class_weights=balanced", "loss.label_smoothing=0.1"), 3),
    "layer statistics": (("model=alexnet_half_v2", "data=synthetic", *STATISTICS), 3),
}


class Transfers(TorchDispatchMode):
    """Counts the host's reads from `meta`, which return growing numbers, and the tensors that are copied to it."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: Counter[str] = Counter()
        self.copies = self.seen = 0

    def note(self) -> None:
        frames = [frame for frame in traceback.extract_stack() if "/alexnet_lab/" in frame.filename]
        self.reads[f"{Path(frames[-1].filename).stem}.{frames[-1].name}" if frames else "a library"] += 1
        self.seen += 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
            self.note()
            return args[0].new_tensor(self.seen, device="cpu").item()
        if func is torch.ops.aten._to_copy.default and args[0].is_meta and str(kwargs.get("device", "meta")) == "cpu":
            self.note()
            return torch.full(args[0].shape, self.seen, dtype=kwargs.get("dtype") or args[0].dtype)
        result = func(*args, **kwargs)
        self.copies += "cpu" in device_types((args, kwargs)) and "meta" in device_types(result)
        return result


class Constants(TorchFunctionMode):
    """Counts tensors that are made of numbers on the host and put on `meta`, which `Transfers` does not see."""

    made = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor):
            self.made += "meta" in device_types(result)
        return result


def device_types(tree: Any) -> set[str]:
    return {leaf.device.type for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)}


class Steps(pl.Callback):
    """Keeps the transfers of each step, and ends the run after the last of `STEPS`."""

    transfers: Transfers
    constants: Constants
    reads: dict[int, Counter[str]]
    copies: dict[int, int]

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.reads[trainer.global_step] = Counter(self.transfers.reads)
        self.copies[trainer.global_step] = self.transfers.copies + self.constants.made
        self.transfers.reads.clear()
        self.transfers.copies = self.constants.made = 0
        trainer.should_stop = trainer.global_step > STEPS[-1]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, random = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for number in range(40):
        file = folder / "source" / "train" / f"class{number % 2}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (40, 50, 3), np.uint8)).save(file)
    prepare(folder / "source", folder / "store", name="imagenette", workers=1)
    return folder / "store"


@pytest.mark.usefixtures("as_in_a_rank")
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_host_waits_for_the_device_only_in_logged_steps(
    recipe: str, settings: Callable[..., Any], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CPUAccelerator, "setup_device", lambda self, device: None)
    monkeypatch.setattr("alexnet_lab.callbacks.progress.ESTIMATE_SECONDS", float("inf"))
    overrides, tensors = RECIPES[recipe]
    Steps.reads, Steps.copies = {}, {}
    with Transfers() as Steps.transfers, Constants() as Steps.constants:
        given = settings(*ON_META, *overrides)
        if "dir" in given["data"]:
            given["data"]["dir"] = str(store)
        train(given, tmp_path, None, 0.0)
    assert {step: Steps.copies[step] for step in STEPS} == dict.fromkeys(STEPS, tensors)
    logged = {"metrics.sums": 1, "classifier._gradient_norm": 1, "finite_loss._check": 1}
    if recipe == "layer statistics":
        logged["layer_statistics.end"] = 1
    assert {step: Steps.reads[step] for step in STEPS} == {step: {} if step % EVERY else logged for step in STEPS}
