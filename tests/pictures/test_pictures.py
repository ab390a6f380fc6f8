"""The input of a run's pictures; a failure to draw never ends a run."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pictures_for_tests import DRAWINGS
from PIL import Image

from alexnet_lab.data.pipeline import ColourNoise, InputPipeline, MeanImage
from alexnet_lab.data.preprocessing import Preprocessing
from alexnet_lab.data.spec import Batch
from alexnet_lab.pictures import callback
from alexnet_lab.pictures.callback import Pictures
from alexnet_lab.pictures.pixels import normalisation, pixels_of
from alexnet_lab.training import train

TINY = (
    "model=lenet",
    "data=synthetic",
    "data.channels=1",
    "data.stored_size=28",
    "data.train_size=64",
    "data.batch_size=32",
    "data.val_size=150",
    "data.eval_batch_size=64",
    "logger=none",
    "trainer=cpu",
    "trainer.max_epochs=2",
    "test_on=none",
)


def sizes(folder: Path) -> dict[str, tuple[int, int]]:
    return {path.stem: Image.open(path).size for path in folder.glob("pictures/*.png")}


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_restored_from_normalised_images(channels: int) -> None:
    stored = torch.randint(0, 256, (5, channels, 32, 32), dtype=torch.uint8)
    mean, std = (0.4, 0.5, 0.6)[:channels], (0.2, 0.25, 0.3)[:channels]
    seen = InputPipeline(32, mean, std)(stored)
    assert torch.equal(pixels_of(seen, *normalisation(Preprocessing.model_construct(mean=mean, std=std), seen)), stored)


def test_pixels_are_restored_from_images_without_the_mean_image() -> None:
    stored, noise = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8), ColourNoise(torch.ones(3), torch.eye(3))
    mean = MeanImage(torch.rand(3, 256, 256), at_crop=False)
    seen = InputPipeline(32, (0.0,), (0.5,), mean_image=mean, noise=noise)(stored)
    facts = Preprocessing.model_construct(mean=(0.0,), std=(0.5,), mean_image=mean.centre(32))
    assert torch.equal(pixels_of(seen, *normalisation(facts, seen)), stored)


def test_every_validation_image_is_counted_and_a_defect_is_a_warning_with_traceback(
    settings: Callable[..., dict[str, Any]],
    as_in_a_rank: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name, drawing in DRAWINGS.items():
        monkeypatch.setattr(callback, name, drawing)
    train(settings(*TINY, "callbacks.pictures.images=40"), tmp_path, None, 0.0)
    # 3 batches of 64, 64 and 22 give 14 images each at most, 40 in all; LeNet's fc4 has 84 outputs. Two epochs have
    # four rows.
    expected = {"batch": (32, 32), "confusion": (150, 10), "curves": (4, 1), "filters": (6, 1), "neighbours": (40, 84)}
    assert sizes(tmp_path) == expected
    (warning,) = [record for record in caplog.records if record.name == callback.__name__]
    assert warning.getMessage() == "pictures: predictions is left out (RuntimeError: a defect of the drawing)"
    assert warning.exc_info is not None


def test_kept_images_do_not_keep_their_batch(tmp_path: Path) -> None:
    images, logits = torch.rand(64, 1, 28, 28), torch.rand(64, 10)
    pictures, facts = Pictures(tmp_path, images=8), Preprocessing.model_construct(mean=(0.0,), std=(1.0,))
    trainer: Any = SimpleNamespace(num_val_batches=[4], datamodule=SimpleNamespace(preprocessing=facts))
    for number in range(4):
        pictures._keep(trainer, logits, Batch(images, torch.zeros(64, dtype=torch.int64), images, 64), number)
    kept = [tensor for parts in pictures._kept for tensor in parts]
    assert [len(tensor) for tensor in kept] == 16 * [2]
    assert all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in kept)


def test_counts_are_summed_over_ranks_and_rank_0_draws(script: Any, tmp_path: Path) -> None:
    environment = script.environment | {"PYTHONPATH": str(Path(__file__).parent)}
    sized = "callbacks.pictures._target_=pictures_for_tests.Sized"
    ended = script.run(*TINY, sized, "trainer=ddp_cpu", f"hydra.run.dir={tmp_path}/run", env=environment)
    assert ended.returncode == 0, ended.stderr
    found = sizes(tmp_path / "run")
    assert found["confusion"] == (150, 10)
    assert found["batch"] == (16, 16)
    assert found["curves"] == (4, 1)
    assert ended.stderr.count("pictures: predictions is left out") == 1


def test_without_the_callback_there_are_no_pictures(
    settings: Callable[..., dict[str, Any]], as_in_a_rank: None, tmp_path: Path
) -> None:
    train(settings(*TINY, "debug=fast_dev_run"), tmp_path, None, 0.0)
    assert not (tmp_path / "pictures").exists()


def test_more_than_a_hundred_classes_have_no_confusion_matrix() -> None:
    callback = Pictures("nowhere")
    callback._count(torch.randn(4, 101), torch.tensor([0, 1, 2, 100]))
    assert callback._counts is None
    callback._count(torch.eye(3), torch.tensor([0, 1, 1]))
    assert callback._counts is not None
    assert callback._counts.tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 0]]


@pytest.mark.alone
def test_pictures_cost_less_than_one_percent_of_an_imagenette_epoch(
    settings: Callable[..., dict[str, Any]], as_in_a_rank: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six steps of 32 photographs and 512 validation images; a real epoch has 9,469 and 3,925."""
    made: list[Pictures] = []
    begin = Pictures.__init__

    def remembered(self: Pictures, *given: Any, **named: Any) -> None:
        begin(self, *given, **named)
        made.append(self)

    monkeypatch.setattr(Pictures, "__init__", remembered)
    size = ("data.stored_size=224", "data.channels=3", "data.train_size=192", "data.val_size=512")
    train(settings(*TINY, "model=alexnet_half_v2", *size, "trainer.max_epochs=1"), tmp_path, None, 0.0)
    assert len(sizes(tmp_path)) == 6
    epoch = 9469 / json.loads((tmp_path / "result.json").read_text())["images_per_second"]
    print(f"{made[0].seconds:.2f} s in the callback, {epoch:.0f} s in an epoch")
    assert made[0].seconds < 0.01 * epoch
