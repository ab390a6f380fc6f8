"""The training objective is torch's cross-entropy of the whole global batch, however the batch is split."""

import math
import re
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.test_classifier import classifier_in, gradients, small_net
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from alexnet_lab.config.schema import check_run_settings
from alexnet_lab.data.class_weights import weights_of
from alexnet_lab.data.mixing import Mixing, mixed
from alexnet_lab.data.sampler import EpochOrder, GlobalBatchSampler
from alexnet_lab.data.spec import Batch
from alexnet_lab.errors import UserError
from alexnet_lab.loss import TrainingLoss
from alexnet_lab.metrics import sum_of_losses

WEIGHTS = (0.5, 3.0, 1.25)
NUMBER, BATCH = 23, 7
IMAGES = torch.randn(NUMBER, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
LABELS = torch.randint(3, (NUMBER,), generator=torch.Generator().manual_seed(3))
MIXING = Mixing(mixup_alpha=0.5, cutmix_alpha=1.0)


def batches(rank: int, world_size: int, accumulate: int, weighted: bool, mixing: bool) -> list[Batch]:
    """A rank's micro-batches of an epoch of four global batches, the last of two samples."""
    per_sample = np.array(WEIGHTS)[LABELS] if weighted and not mixing else None
    order = EpochOrder(NUMBER, seed=1, shuffled=True)
    parts = GlobalBatchSampler(order, BATCH, rank, world_size, accumulate, 2 if mixing else 1, per_sample)
    found = []
    for samples, size, weight in parts.micro_batches():
        images, labels = IMAGES[samples], LABELS[samples]
        mixture = MIXING.draw(4, 1, 0, samples, labels.numpy()) if mixing else None
        images = images if mixture is None else mixed(images, mixture)
        found.append(Batch(images, labels, torch.from_numpy(samples), size, mixture=mixture, global_weight=weight))
    return found


def whole_loss(net: torch.nn.Module, batch: Batch, weighted: bool, smoothing: float) -> Tensor:
    """Torch's own loss of a whole global batch."""
    target = batch.labels
    if batch.mixture is not None:
        share = batch.mixture.share(torch.float64)[:, None]
        target = share * one_hot(batch.labels, 3) + (1 - share) * one_hot(batch.mixture.partners, 3)
    weights = torch.tensor(WEIGHTS, dtype=torch.float64) if weighted else None
    return cross_entropy(net(batch.images), target, weights, label_smoothing=smoothing)


@pytest.mark.parametrize(("world_size", "accumulate"), list(product((1, 2, 3), (1, 2))))
@pytest.mark.parametrize("mixing", [False, True], ids=["plain", "mixed"])
@pytest.mark.parametrize("weighted", [False, True], ids=["equal", "weighted"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_objective_and_gradient_are_torchs_of_the_global_batch(
    smoothing: float, weighted: bool, mixing: bool, world_size: int, accumulate: int
) -> None:
    ranks = [batches(rank, world_size, accumulate, weighted, mixing) for rank in range(world_size)]
    total = 0.0
    loss = TrainingLoss(smoothing, lambda: WEIGHTS if weighted else None)
    module = classifier_in(small_net(), world_size=world_size, accumulate_grad_batches=accumulate, loss=loss)
    for step, batch in enumerate(batches(0, 1, 1, weighted, mixing)):
        whole = small_net()
        expected = whole_loss(whole, batch, weighted, smoothing)
        expected.backward()
        total += expected.item() * batch.global_size
        module.net = net = small_net()
        for rank, micro in product(range(world_size), range(accumulate)):
            part = ranks[rank][step * accumulate + micro]
            # DDP takes the mean over the ranks, lightning divides by the number of micro-batches.
            (module.training_step(part, 0) / (world_size * accumulate)).backward()
        torch.testing.assert_close(gradients(net), gradients(whole), rtol=1e-12, atol=1e-14)
    assert module.train_metrics.compute()["loss"] == pytest.approx(total / NUMBER, rel=1e-12)


def test_default_objective_is_the_plain_sum_to_the_bit() -> None:
    logits = torch.randn(9, 3)
    labels = torch.randint(3, (9,))
    batch = Batch(logits, labels, labels, 9)
    assert torch.equal(TrainingLoss()(logits, batch), sum_of_losses(logits, labels))


def test_batch_whose_classes_all_have_weight_zero_changes_nothing() -> None:
    logits = torch.randn(2, 3, requires_grad=True)
    batch = Batch(logits, torch.zeros(2, dtype=torch.int64), torch.arange(2), 2, global_weight=0.0)
    loss = TrainingLoss(class_weights=lambda: (0.0, 1.0, 1.0))(logits, batch)
    loss.backward()
    assert loss == 0
    assert not logits.grad.any()  # type: ignore[union-attr]


def test_top1_of_mixed_images_is_counted_by_the_label_with_the_larger_share() -> None:
    (batch, *_) = batches(0, 1, 1, weighted=False, mixing=True)
    assert batch.mixture is not None
    likely = one_hot(batch.mixture.largest(batch.labels), 3).double()
    module = classifier_in(torch.nn.Identity(), loss=TrainingLoss())
    module.training_step(batch._replace(images=likely), 0)
    assert module.train_metrics.compute()["top1"] == 1.0
    assert not torch.equal(batch.mixture.largest(batch.labels), batch.labels)


def test_balanced_weights_give_each_class_the_same_total() -> None:
    labels = np.array([0, 0, 0, 0, 1, 2, 2, 2])
    weights = weights_of("balanced", labels, ["a", "b", "c"])
    assert weights == pytest.approx([8 / 12, 8 / 3, 8 / 9])
    assert np.array(weights)[labels].mean() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ([1.0, 2.0], r"loss\.class_weights has 2 numbers, but there are 3 classes, in the order a, b, c"),
        ("balanced", r"loss\.class_weights=balanced: no training images of b; choose a list of 3 numbers"),
    ],
)
def test_weights_that_do_not_fit_the_classes_are_refused(setting: Any, line: str) -> None:
    with pytest.raises(UserError, match=f"^{line}"):
        weights_of(setting, np.array([0, 2, 2]), ["a", "b", "c"])


def test_start_with_another_number_of_weights_than_classes_prints_only_the_error(script: Any, tmp_path: Path) -> None:
    small = ("model=lenet", "data=synthetic", "data.train_size=32", "data.val_size=8", "trainer=cpu")
    logger = ("logger=wandb", "logger.wandb.mode=offline", f"hydra.run.dir={tmp_path}/run")
    ended = script.run(*small, *logger, "loss.class_weights=[1,2]")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert re.fullmatch(r"error: loss\.class_weights has 2 numbers, but there are 10 classes.*\n", ended.stderr)
    assert not (tmp_path / "run").exists()


def test_names_of_classes_that_contain_a_comma_are_quoted_in_a_list() -> None:
    with pytest.raises(UserError, match=r'in the order "tench, red", pike, "a,b"$'):
        weights_of([1.0], np.array([0, 1, 2]), ["tench, red", "pike", "a,b"])


@pytest.mark.parametrize("weights", [[math.inf, 1.0], [1e39, 1.0], [1e-50, 1e-50], [math.nan, 1.0], [0.0, 0.0]])
def test_class_weights_that_are_not_finite_numbers_in_float32_are_refused(weights: list[float], settings: Any) -> None:
    with pytest.raises(UserError, match=r"^loss\.class_weights: .* does not fit: "):
        check_run_settings({**settings(), "loss": {"class_weights": weights}})


def test_class_weights_of_any_common_size_are_accepted(settings: Any) -> None:
    check_run_settings({**settings(), "loss": {"class_weights": [0, 1, 1e-6, 1e6]}})
