"""Loss, top-1 and top-5 against hand values and torchmetrics' own."""

import pytest
import torch
from torch.nn.functional import cross_entropy
from torchmetrics.classification import MulticlassAccuracy

from alexnet_lab.metrics import ClassificationMetrics


def test_top1_and_top5_equal_torchmetrics_micro_accuracy() -> None:
    generator = torch.Generator().manual_seed(0)
    ours = ClassificationMetrics()
    theirs = {k: MulticlassAccuracy(num_classes=20, top_k=k, average="micro") for k in (1, 5)}
    for size in (64, 64, 7):
        logits = torch.randn(size, 20, generator=generator)
        labels = torch.randint(20, (size,), generator=generator)
        ours.update(cross_entropy(logits, labels, reduction="sum"), logits, labels)
        for metric in theirs.values():
            metric.update(logits, labels)
    figures = ours.compute()
    assert figures["top1"] == pytest.approx(float(theirs[1].compute()), abs=1e-6)
    assert figures["top5"] == pytest.approx(float(theirs[5].compute()), abs=1e-6)
    assert figures["count"] == 135


def test_figures_of_four_samples_by_hand() -> None:
    # Ranks of the labels among six classes: 1st, 2nd, 5th, 6th.
    logits = torch.tensor([[6.0, 5.0, 4.0, 3.0, 2.0, 1.0]]).repeat(4, 1)
    metrics = ClassificationMetrics()
    metrics.update(torch.tensor(10.0), logits, torch.tensor([0, 1, 4, 5]))
    assert metrics.compute() == {"loss": 2.5, "top1": 0.25, "top5": 0.75, "count": 4}


@pytest.mark.parametrize("classes", [1, 2, 4])
def test_top5_is_one_with_fewer_than_five_classes(classes: int) -> None:
    metrics = ClassificationMetrics()
    metrics.update(torch.tensor(1.0), torch.randn(8, classes), torch.arange(8) % classes)
    assert metrics.compute()["top5"] == 1.0


def test_an_empty_batch_changes_nothing() -> None:
    metrics = ClassificationMetrics()
    metrics.update(torch.tensor(3.0), torch.eye(6)[:2], torch.tensor([0, 0]))
    before = metrics.compute()
    metrics.update(torch.tensor(0.0), torch.empty(0, 6), torch.empty(0, dtype=torch.int64))
    assert metrics.compute() == before == {"loss": 1.5, "top1": 0.5, "top5": 1.0, "count": 2}


@pytest.mark.filterwarnings("ignore:.*called before the ``update``")
def test_no_samples_give_no_figures() -> None:
    assert ClassificationMetrics().compute() == {}


def test_counts_stay_exact_beyond_what_float32_can_count() -> None:
    metrics = ClassificationMetrics()
    metrics.top1.fill_(2**24)
    metrics.count.fill_(2**24)
    metrics.update(torch.tensor(0.0), torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
    assert (int(metrics.top1), int(metrics.count)) == (2**24 + 1, 2**24 + 1)


@pytest.mark.filterwarnings("ignore:.*called before the ``update``")
def test_reset_forgets_everything() -> None:
    metrics = ClassificationMetrics()
    metrics.update(torch.tensor(3.0), torch.eye(2), torch.tensor([0, 1]))
    metrics.reset()
    assert metrics.compute() == {}
